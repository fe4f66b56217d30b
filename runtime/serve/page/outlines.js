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
    await Promise.all(regions.filter((region) => isCut(region) && !this.of(region)).map((one) => this.#ask(one, scene)));
  }

  async #ask(region, scene) {
    this.#known.set(region, { state: "asked" });
    try {
      const json = jsonOf(region, scene.picture);
      const response = await scene.post("outline", { regions: { 0: json } });
      const told = await response.json();
      const { mask, box } = told.regions[0];
      this.#known.set(region, { state: "there", mask: await maskShape(mask, box), said: told.warnings?.join(" ") ?? "" });
    } catch (error) {
      this.#known.set(region, { state: "failed", said: error.message });
    }
    this.dispatchEvent(new Event("change"));
  }
}
