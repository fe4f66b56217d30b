// Ask gar-serve about a box in a picture: plain HTTP over a POSIX socket, no library.
//
//   g++ -std=c++17 -O2 -o ask ask.cpp && ./ask 127.0.0.1 8080 photo.png 50 95 136 190 'What is <Prompt0>?'
//
// The picture is sent once and kept open; a planner asks about it as often as it likes. Prints the answers' JSON.
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>

namespace {

// What stands behind a name, in a head or in {"id":"scene-…", …}: a real program uses a JSON library there.
std::string field(const std::string& text, const std::string& name) {
  std::string lower = text;
  for (char& one : lower) one = static_cast<char>(std::tolower(static_cast<unsigned char>(one)));
  const size_t begin = lower.find(name);
  if (begin == std::string::npos) throw std::runtime_error("no " + name + "in " + text);
  const size_t from = begin + name.size();
  return text.substr(from, text.find_first_of("\r\",", from) - from);
}

class Connection {
 public:
  Connection(const std::string& host, const std::string& port) : host_(host + ":" + port) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0) throw std::runtime_error("no such host");
    socket_ = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    const bool open = socket_ >= 0 && connect(socket_, found->ai_addr, found->ai_addrlen) == 0;
    freeaddrinfo(found);
    if (!open) throw std::runtime_error("gar-serve does not answer there");
  }
  ~Connection() { close(socket_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // The answer's body; throws with it where the status is an error.
  std::string post(const std::string& path, const std::string& type, const std::string& body) {
    std::string head = "POST " + path + " HTTP/1.1\r\nHost: " + host_ + "\r\nContent-Type: " + type +
                       "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    if (const char* key = std::getenv("GAR_KEY")) head += std::string("Authorization: Bearer ") + key + "\r\n";
    send_all(head + "\r\n" + body);
    const std::string answer = read_head();
    const int status = std::stoi(answer.substr(answer.find(' ') + 1));
    const std::string said = read_body(std::stoul(field(answer, "content-length: ")));
    if (status >= 300) throw std::runtime_error(std::to_string(status) + ": " + said);
    return said;
  }

 private:
  void send_all(const std::string& data) {
    for (size_t sent = 0; sent < data.size();) {
      const ssize_t count = send(socket_, data.data() + sent, data.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) throw std::runtime_error("the connection was closed");
      sent += static_cast<size_t>(count);
    }
  }
  void more() {
    char piece[65536];
    const ssize_t count = recv(socket_, piece, sizeof piece, 0);
    if (count <= 0) throw std::runtime_error("the connection was closed");
    held_.append(piece, static_cast<size_t>(count));
  }
  std::string read_head() {
    size_t end;
    while ((end = held_.find("\r\n\r\n")) == std::string::npos) more();
    const std::string head = held_.substr(0, end + 4);
    held_.erase(0, end + 4);
    return head;
  }
  std::string read_body(size_t length) {
    while (held_.size() < length) more();
    const std::string body = held_.substr(0, length);
    held_.erase(0, length);
    return body;
  }

  std::string host_, held_;
  int socket_ = -1;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char one : text) {
    if (static_cast<unsigned char>(one) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", one);
      out += code;
      continue;
    }
    if (one == '"' || one == '\\') out += '\\';
    out += one;
  }
  return out + "\"";
}

}  // namespace

int main(int count, char** words) {
  if (count != 9) {
    std::cerr << "ask HOST PORT PICTURE LEFT UPPER RIGHT LOWER QUESTION\n";
    return 2;
  }
  try {
    std::ifstream file(words[3], std::ios::binary);
    if (!file) throw std::runtime_error(std::string(words[3]) + ": cannot be read");
    const std::string picture((std::istreambuf_iterator<char>(file)), {});
    const bool png = picture.rfind("\x89PNG", 0) == 0;
    Connection server(words[1], words[2]);
    const std::string opened = server.post("/v1/scenes", png ? "image/png" : "image/jpeg", picture);
    const std::string id = field(opened, "\"id\":\"");
    const std::string box = std::string(words[4]) + "," + words[5] + "," + words[6] + "," + words[7];
    const std::string asked = "{\"question\":" + quoted(words[8]) + ",\"regions\":[{\"box\":[" + box + "]}]}";
    std::cout << server.post("/v1/scenes/" + id + "/ask", "application/json", asked) << "\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
