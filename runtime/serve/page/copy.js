// A request as something to run elsewhere.

import { ROOT } from "./api.js";
import { copyText, element } from "./dom.js";
import { currentKey } from "./key.js";

const ENDINGS = { "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp" };

/** Commands for a POSIX shell: send the picture, then ask. Where a key is in use they take it from $GAR_KEY. */
export function asCurl({ path, body }, { picture, root, key }) {
  const { type } = picture.blob;
  const curl = `curl -sS --fail-with-body${key ? ' -H "Authorization: Bearer $GAR_KEY"' : ""}`;
  return [
    fileNote(picture),
    `SERVER='${root.replaceAll("'", "%27")}'`,
    `SCENE=$(${curl} -H 'Content-Type: ${type}' --data-binary @${fileOf(type)} "$SERVER/v1/scenes" |`,
    `  sed 's/.*"id": *"\\([^"]*\\)".*/\\1/')`,
    `${curl} -H 'Content-Type: application/json' --data-binary @- "$SERVER/v1/scenes/$SCENE/${path}" <<'END'`,
    JSON.stringify(body),
    "END",
    "",
  ].join("\n");
}

/** A Python program of the standard library alone. */
export function asPython({ path, body }, { picture, root, key }) {
  const { type } = picture.blob;
  return [
    fileNote(picture),
    "import json",
    ...(key ? ["import os"] : []),
    "import urllib.request",
    "",
    `SERVER = ${JSON.stringify(root)}`,
    "",
    "",
    "def post(path, data, content_type):",
    `    headers = {"Content-Type": content_type${key ? ', "Authorization": "Bearer " + os.environ["GAR_KEY"]' : ""}}`,
    "    with urllib.request.urlopen(urllib.request.Request(SERVER + path, data, headers)) as response:",
    "        return json.load(response)",
    "",
    "",
    `with open("${fileOf(type)}", "rb") as picture:`,
    `    scene = post("/v1/scenes", picture.read(), "${type}")`,
    // A JSON text in a string: JSON's true, false and null are not Python's.
    `body = json.loads(${JSON.stringify(JSON.stringify(body))})`,
    `answers = post(f"/v1/scenes/{scene['id']}/${path}", json.dumps(body).encode(), "application/json")["answers"]`,
    "for answer in answers:",
    '    print(answer["text"])',
    "",
  ].join("\n");
}

/** The request's body. */
export const asJson = ({ body }) => `${JSON.stringify(body, null, 2)}\n`;

/** Buttons that put a request on the clipboard. */
export function copyButtons(request, scene) {
  const of = { curl: asCurl, Python: asPython, JSON: asJson };
  const about = () => ({ picture: scene.picture, root: ROOT.href.replace(/\/$/, ""), key: currentKey() !== null });
  const buttons = Object.entries(of).map(([name, text]) => {
    const copy = async () => {
      try {
        await copyText(text(request, about()));
        said.textContent = `${name} copied.`;
      } catch (error) {
        said.textContent = `Not copied: ${error.message}`;
      }
    };
    return element("button", { type: "button", class: "plain", "aria-label": `Copy as ${name}`, onclick: copy }, name);
  });
  const said = element("span", { class: "quiet", role: "status" });
  return element("span", { class: "copy" }, element("span", { class: "quiet" }, "Copy as"), ...buttons, said);
}

/** Which file is meant: coordinates are those of this size, upright. */
const fileNote = ({ blob, width, height }) => `# ${fileOf(blob.type)}: the picture, ${width} x ${height}`;

const fileOf = (type) => `photo.${ENDINGS[type]}`;
