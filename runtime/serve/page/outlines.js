// What the server makes of boxes and points, so that the reader sees which pixels are asked about.

import { isCut, jsonOf } from "./shapes.js";
import { maskShape } from "./masks.js";

/** Fires "change" when an outline has come, or could not be had. */
export class Outlines extends EventTarget {
  #known = new WeakMap(); // region -> {state: "asked" | "there" | "failed", mask, said}

  /** The state of a region's outline; undefined where none was asked for. */
  of(region) {
    return this.#known.get(region);
  }

  /** The mask of a region: what was drawn, or what the server cut out; null while that is not known. */
  maskOf(region) {
    return isCut(region) ? this.of(region)?.mask ?? null : region;
  }

  /** Ask for the outlines that are missing. */
  async want(regions, scene) {
    const missing = regions.filter((region) => isCut(region) && !this.of(region));
    await Promise.all(missing.map((region) => this.#ask(region, scene)));
  }

  async #ask(region, scene) {
    this.#known.set(region, { state: "asked" });
    try {
      const json = jsonOf(region, scene.picture);
      const response = await scene.post("outline", { regions: { 0: json } });
      const { regions, warnings = [] } = await response.json();
      const mask = await maskShape(regions[0].mask, regions[0].box);
      this.#known.set(region, { state: "there", mask, said: warnings.join(" ") });
    } catch (error) {
      this.#known.set(region, { state: "failed", said: error.message });
    }
    this.dispatchEvent(new Event("change"));
  }
}
