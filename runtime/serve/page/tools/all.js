// The tools, in the order of the bar.
//
// A tool is {name, label, key, hint, begin, move, end, draw}, and where it applies: clicks (a press is all it takes),
// stays (a draft outlives the release), sized (has a width), finish (ends a draft that stays), preview (the region that
// a draft would become). begin, move, end and finish return the draft that they leave, null for none. `desk` is what
// they work on: regions, outlines, width, height, scale, brush, outside, say.

import { box } from "./box.js";
import { points } from "./points.js";
import { polygon } from "./polygon.js";
import { brush, eraser } from "./strokes.js";

export const TOOLS = [box, brush, points, polygon, eraser];
