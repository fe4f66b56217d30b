// Pointer and keys over the picture, handed to the tool in use.

import { partsOf, startPinch } from "./pinch.js";

const PART = 40; // arrow keys go this part of the longer side; with Shift one pixel

export class Stage {
  /** @param canvas where to draw. @param desk what tools work on, with `picture`. @param redraw called on changes. */
  constructor(canvas, desk, redraw) {
    this.canvas = canvas;
    this.desk = desk;
    this.redraw = redraw;
    this.tool = null;
    this.draft = null;
    this.cursor = null; // where the arrow keys have come to; null while the pointer is used
    this.pressed = false;
    this.tapping = false; // a finger is down that may be the first of two
    startPinch(canvas, desk, { begin: () => this.#pinch(), redraw });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.cancel());
    canvas.addEventListener("dblclick", () => this.finish());
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#put(null));
  }

  /** Take another tool; what was begun with the one before is left off. */
  take(tool) {
    this.cancel();
    this.tool = tool;
  }

  /** Leave off what was begun. True where there was something. */
  cancel() {
    const begun = this.draft !== null;
    this.#leave(null);
    return begun;
  }

  /** End a draft that stays, such as an outline. */
  finish() {
    if (this.draft !== null && this.tool.finish) this.#leave(this.tool.finish(this.desk, this.draft));
  }

  #leave(draft) {
    this.draft = draft;
    this.pressed = this.pressed && draft !== null;
    this.redraw();
  }

  #begin(point, other) {
    this.#leave(this.tool.begin(this.desk, point, this.draft, { other }));
    this.pressed = this.draft !== null;
  }

  #go(point) {
    if (this.draft === null || !(this.pressed || this.tool.stays)) return;
    this.#leave(this.tool.move(this.desk, this.draft, point));
  }

  #end() {
    if (this.draft !== null && this.pressed) this.#leave(this.tool.end(this.desk, this.draft));
    this.pressed = false;
  }

  #down(event) {
    const right = event.button === 2;
    if (!event.isPrimary || !(event.button === 0 || (right && this.tool.name === "points"))) return;
    this.cursor = null;
    this.canvas.setPointerCapture(event.pointerId);
    this.tapping = event.pointerType === "touch" && this.tool.clicks === true;
    if (!this.tapping) this.#begin(this.#at(event), right || event.shiftKey);
  }

  #move(event) {
    if (!event.isPrimary) return;
    for (const one of this.pressed ? event.getCoalescedEvents?.() ?? [event] : [event]) this.#go(this.#at(one));
  }

  #up(event) {
    if (!event.isPrimary) return;
    if (this.tapping) this.#begin(this.#at(event), false);
    this.tapping = false;
    this.#end();
  }

  /** A second finger: what the first one began was not meant, except for an outline's corners. */
  #pinch() {
    this.tapping = false;
    if (!this.tool.stays) this.cancel();
  }

  #at(event) {
    return this.#within(this.desk.seen.pointAt(partsOf(this.canvas, [event.clientX, event.clientY])));
  }

  #within([x, y]) {
    return [Math.min(Math.max(x, 0), this.desk.width), Math.min(Math.max(y, 0), this.desk.height)];
  }

  /** With Ctrl, as a pinch on a touchpad comes, larger and smaller; else about the enlarged picture. */
  #wheel(event) {
    const { seen, scale } = this.desk;
    if (event.ctrlKey) seen.enlarge(Math.exp(-event.deltaY / 200), this.#at(event));
    else if (seen.zoom > 1) seen.move([event.deltaX / scale, event.deltaY / scale]);
    else return; // the page scrolls
    event.preventDefault();
    this.redraw();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (way) {
      const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(this.desk.width, this.desk.height) / PART));
      const [x, y] = this.cursor ?? [Math.round(this.desk.width / 2), Math.round(this.desk.height / 2)];
      this.#put(this.#within([x + way[0] * step, y + way[1] * step]));
      this.#go(this.cursor);
    } else if (event.key === " " || (event.key === "Enter" && !(this.tool.finish && this.draft))) {
      this.#press(event.shiftKey);
    } else if (event.key === "Enter") {
      this.finish();
    } else if (event.key !== "Escape" || !this.cancel()) {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** What a click does, or, of tools that are dragged, first the press and then the release. */
  #press(other) {
    const point = this.cursor ?? [Math.round(this.desk.width / 2), Math.round(this.desk.height / 2)];
    this.#put(point);
    if (this.tool.clicks) {
      this.#begin(point, other);
      this.#end();
    } else if (this.pressed) {
      this.#end();
    } else {
      this.#begin(point, other);
    }
  }

  #put(cursor) {
    this.cursor = cursor;
    if (cursor) this.desk.seen.reach(cursor);
    this.redraw();
  }
}
