// Brush and eraser: strokes that add to a region or take from it.

import { areaOf } from "../masks.js";
import { isCut } from "../shapes.js";

/** The chosen region as something to paint on, or null where there is nothing (yet). */
function canvasOf(desk, erase) {
  const region = desk.regions.get(desk.regions.chosen);
  if (region?.kind === "brush") return region;
  if (!erase || !region) return null;
  const base = isCut(region) ? desk.outlines.maskOf(region) : region;
  return base === null ? null : { kind: "brush", number: region.number, base, strokes: [] };
}

function withStroke(shape, { erase, width, path }) {
  return { ...shape, strokes: [...shape.strokes, { erase, width, path }] };
}

function strokeTool(erase, rest) {
  return {
    ...rest,
    sized: true,

    begin(desk, point) {
      const on = canvasOf(desk, erase);
      if (erase && on === null) {
        desk.say("Choose a region first: the eraser takes from the one that is chosen.");
        return null;
      }
      return { on, erase, width: desk.brush, path: [point] };
    },

    move: (desk, draft, point) => ({ ...draft, path: [...draft.path, point] }),

    end(desk, draft) {
      const shape = this.preview(desk, draft);
      if (draft.on === null) {
        desk.regions.add(shape);
      } else if (areaOf(shape, desk.width, desk.height) === 0) {
        desk.regions.remove(shape.number);
        desk.say(`Nothing was left of region ${shape.number}, so it is gone.`);
      } else {
        desk.regions.change(shape.number, shape);
      }
      return null;
    },

    /** The region as it would be if the stroke ended here. */
    preview(desk, draft) {
      return withStroke(draft.on ?? { kind: "brush", number: desk.regions.free, base: null, strokes: [] }, draft);
    },

    draw() {},
  };
}

export const brush = strokeTool(false, {
  name: "brush",
  label: "Brush",
  key: "b",
  hint: "Paint over a thing. Paint on to add to it; New (N) begins another region.",
});

export const eraser = strokeTool(true, {
  name: "eraser",
  label: "Eraser",
  key: "e",
  hint: "Rub out a part of the chosen region, however it was made.",
});
