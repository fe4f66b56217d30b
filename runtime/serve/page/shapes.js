// What a region may be drawn as, and what the server is sent for it.
//
// {kind: "box", box: [left, upper, right, lower], asIs, inside, outside}   points beside a box are optional
// {kind: "points", inside: [[x, y]], outside: [[x, y]]}
// {kind: "polygon", outline: [[x, y]]}
// {kind: "brush", base, strokes: [{erase, width, path: [[x, y]]}]}   base: a shape or a mask that was painted over
//
// Coordinates are pixels of the picture, from its upper left corner.

import { maskUrl } from "./masks.js";

/** Whether the server cuts the region out of the picture by its colours. */
export const isCut = (shape) => (shape.kind === "box" && !shape.asIs) || shape.kind === "points";

/** The region as the API takes it, in whole pixels. */
export function jsonOf(shape, { width, height }) {
  if (shape.kind === "polygon") return { polygons: [shape.outline.flatMap(whole)] };
  if (shape.kind === "brush") return { mask: maskUrl(shape, width, height) };
  const json = shape.kind === "box" ? { box: shape.box.map(Math.round) } : {};
  if (shape.asIs) return { ...json, as_mask: true };
  if (shape.inside?.length) json.points = shape.inside.map(whole);
  if (shape.outside?.length) json.not_points = shape.outside.map(whole);
  return json;
}

/** A shape of what the API takes; for the examples, which hold boxes, points and polygons. */
export function shapeOf(json) {
  if (json.polygons) return { kind: "polygon", outline: pairs(json.polygons[0]) };
  const points = { inside: json.points ?? [], outside: json.not_points ?? [] };
  if (!json.box) return { kind: "points", ...points };
  return { kind: "box", box: json.box, asIs: json.as_mask === true, ...points };
}

/** Where the region's number is written: the upper left of what was drawn. */
export function cornerOf(shape) {
  if (shape.kind === "box") return [shape.box[0], shape.box[1]];
  if (shape.kind === "points") return shape.inside[0] ?? shape.outside[0];
  if (shape.kind === "mask") return shape.corner;
  const painted = shape.outline ?? shape.strokes.filter(({ erase }) => !erase).flatMap(({ path }) => path);
  const points = shape.base ? [cornerOf(shape.base), ...painted] : painted;
  return [Math.min(...points.map(([x]) => x)), Math.min(...points.map(([, y]) => y))];
}

const whole = (point) => point.map(Math.round);

function pairs(numbers) {
  return Array.from({ length: numbers.length / 2 }, (_, index) => [numbers[2 * index], numbers[2 * index + 1]]);
}
