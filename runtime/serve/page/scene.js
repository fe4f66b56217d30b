// The picture on the server, which forgets it after a while: then it is sent again.

import { ApiError, send, sendJson } from "./api.js";

export class Scene {
  #sent = null;

  /** @param picture what `readPicture` gives. @param options `waiting` as in `send`. */
  constructor(picture, options = {}) {
    this.picture = picture;
    this.options = options;
  }

  /** What the server says of the picture: id, width, height, grid, warnings. Sends it where that is yet to be done. */
  told() {
    this.#sent ??= this.#send().catch((error) => {
      this.#sent = null;
      throw error;
    });
    return this.#sent;
  }

  /** Post to one of the scene's paths; the response. A scene that is gone is sent again, once. */
  async post(path, body, signal) {
    const before = this.#sent;
    try {
      return await this.#post(path, body, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "scene_not_found") throw error;
      if (this.#sent === before || before === null) this.#sent = null;
      return this.#post(path, body, signal);
    }
  }

  /** Tell the server that nobody will ask about this picture any more. */
  async leave() {
    const sent = this.#sent;
    this.#sent = null;
    const told = await sent?.catch(() => null);
    if (told) await send("DELETE", `v1/scenes/${told.id}`, { keepalive: true }).catch(() => {});
  }

  async #post(path, body, signal) {
    const { id } = await this.told();
    signal?.throwIfAborted();
    return sendJson(`v1/scenes/${id}/${path}`, body, { ...this.options, signal });
  }

  async #send() {
    const { blob } = this.picture;
    const response = await send("POST", "v1/scenes", { ...this.options, body: blob, type: blob.type });
    return response.json();
  }
}
