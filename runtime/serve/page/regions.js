// The regions of a picture: numbered, one of them chosen, with undo and redo.

const COLOURS = ["#e4572e", "#2e86de", "#f2b705", "#1b9e77", "#a55eea", "#ef6fae", "#12b5cb", "#8a6d3b"];

/** The colour of a region, by its number. */
export const colourOf = (number) => COLOURS[number % COLOURS.length];

/**
 * Regions are frozen objects `{number, kind, …}` (shapes.js has the kinds), replaced when they change: undo keeps the
 * lists before. Fires "change" when the regions change, "choose" when another one is chosen.
 */
export class Regions extends EventTarget {
  #now = [];
  #past = [];
  #future = [];

  /** Number of the chosen region, which tools go on with; null: they begin a new one. */
  chosen = null;

  get all() {
    return this.#now;
  }

  get free() {
    let number = 0;
    while (this.get(number)) number += 1;
    return number;
  }

  get canUndo() {
    return this.#past.length > 0;
  }

  get canRedo() {
    return this.#future.length > 0;
  }

  get(number) {
    return this.#now.find((region) => region.number === number);
  }

  /** Add a region under the lowest free number and choose it. */
  add(shape) {
    const region = Object.freeze({ ...shape, number: this.free });
    this.#become([...this.#now, region].sort((one, other) => one.number - other.number), region.number);
    return region;
  }

  change(number, shape) {
    const region = Object.freeze({ ...shape, number });
    this.#become(this.#now.map((one) => (one.number === number ? region : one)), number);
  }

  remove(number) {
    const left = this.#now.filter((region) => region.number !== number);
    this.#become(left, this.chosen === number ? null : this.chosen);
  }

  clear() {
    if (this.#now.length > 0) this.#become([], null);
  }

  /** Begin anew with these shapes, numbered from 0; nothing can be undone. */
  start(shapes = []) {
    this.#now = shapes.map((shape, number) => Object.freeze({ ...shape, number }));
    this.#past = [];
    this.#future = [];
    this.chosen = null;
    this.dispatchEvent(new Event("change"));
  }

  choose(number) {
    this.chosen = number;
    this.dispatchEvent(new Event("choose"));
  }

  undo() {
    this.#step(this.#past, this.#future);
  }

  redo() {
    this.#step(this.#future, this.#past);
  }

  #become(regions, chosen) {
    this.#past.push(this.#now);
    this.#future = [];
    this.#now = regions;
    this.chosen = chosen;
    this.dispatchEvent(new Event("change"));
  }

  #step(from, to) {
    if (from.length === 0) return;
    to.push(this.#now);
    this.#now = from.pop();
    if (!this.get(this.chosen)) this.chosen = null;
    this.dispatchEvent(new Event("change"));
  }
}
