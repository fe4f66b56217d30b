// One request at a time: sent, its answers shown as they come, stopped.

import { eventsOf } from "./sse.js";

export class Asking {
  #abort = null;

  /** @param changed called when a request begins and when it has ended. */
  constructor(changed) {
    this.changed = changed;
  }

  get busy() {
    return this.#abort !== null;
  }

  /** Stop the request; the server ends its answers. False where there is none. */
  stop() {
    const { busy } = this;
    this.#abort?.abort();
    return busy;
  }

  /** Send a request about a scene and fill its card. */
  async run(request, scene, card) {
    const abort = new AbortController();
    this.#abort = abort;
    this.changed();
    try {
      const streamed = request.path !== "choose"; // a choice comes whole
      const body = streamed ? { ...request.body, stream: true } : request.body;
      const response = await scene.post(request.path, body, abort.signal);
      if (streamed) await this.#read(response, card);
      else takeWhole(await response.json(), card);
      if (!card.complete) card.stop("The answer broke off.");
    } catch (error) {
      if (error.name === "AbortError") card.stop("Stopped.");
      else card.fail(error instanceof TypeError ? "The connection to the server broke off." : error.message);
    } finally {
      this.#abort = null;
      this.changed();
    }
  }

  async #read(response, card) {
    for await (const { event, data } of eventsOf(response.body)) {
      if (event === "end") card.stop("");
      else card.take(event, JSON.parse(data));
    }
  }
}

function takeWhole({ answers, warnings = [] }, card) {
  for (const warning of warnings) card.warn(warning);
  for (const answer of answers) card.take("answer", answer);
  card.stop("");
}
