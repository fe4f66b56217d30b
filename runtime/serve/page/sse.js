// Server-sent events, read from a fetch: EventSource can neither post nor carry a key.

/** The events of a response's body, `{event, data}` each, as they come. A cut-off last event is left out. */
export async function* eventsOf(body) {
  let rest = "";
  let event = "";
  let data = [];
  for await (const piece of textOf(body)) {
    const lines = (rest + piece).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length > 0) yield { event: event || "message", data: data.join("\n") };
        event = "";
        data = [];
      } else if (!line.startsWith(":")) {
        const [, field, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line);
        if (field === "event") event = value ?? "";
        if (field === "data") data.push(value ?? "");
      }
    }
  }
}

async function* textOf(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let read = await reader.read();
  try {
    for (; !read.done; read = await reader.read()) yield decoder.decode(read.value, { stream: true });
  } finally {
    if (!read.done) reader.cancel().catch(() => {}); // whoever stops reading early ends the request
  }
}
