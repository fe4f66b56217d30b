// Paints the picture, its regions and what is being drawn.

import { blank, drawMask } from "./masks.js";
import { colourOf } from "./regions.js";
import { cornerOf, isCut } from "./shapes.js";

const HALO = "rgb(0 0 0 / 55%)";
const AROUND = [[1, 0], [-1, 0], [0, 1], [0, -1], [0.7, 0.7], [-0.7, 0.7], [0.7, -0.7], [-0.7, -0.7]];

export class View {
  #canvas;
  #fitted = 1;
  #layers = new WeakMap(); // mask -> {key, canvas}: painting a layer takes longer than copying it

  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** Fit the canvas to a picture shown at this width, in pixels of the page. `seen`: the part of it to be seen. */
  resize(picture, shown, seen) {
    const ratio = window.devicePixelRatio || 1;
    this.#canvas.style.width = `${shown}px`;
    this.#canvas.style.height = `${shown * picture.height / picture.width}px`;
    this.#canvas.width = Math.round(shown * ratio);
    this.#canvas.height = Math.round(shown * ratio * picture.height / picture.width);
    this.#fitted = shown / picture.width;
    this.seen = seen;
  }

  /** Pixels of the page to one of the picture. */
  get scale() {
    return this.#fitted * this.seen.zoom;
  }

  /** @param {object} scene what to paint: picture, regions, chosen, outlines, draft, tool, desk, cursor. */
  paint({ picture, regions, chosen, outlines, draft, tool, desk, cursor }) {
    const context = this.#canvas.getContext("2d");
    const ratio = this.#canvas.width / picture.width * this.seen.zoom;
    const [x, y] = this.seen.origin;
    const place = [ratio, 0, 0, ratio, -x * ratio, -y * ratio];
    context.setTransform(...place);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture.bitmap, 0, 0);
    const preview = draft && tool.preview ? tool.preview(desk, draft) : null;
    const shown = preview ? [...regions.filter(({ number }) => number !== preview.number), preview] : regions;
    for (const region of shown) {
      const mask = region === preview ? preview : outlines.maskOf(region);
      const strong = region.number === chosen || region === preview;
      if (mask) this.#tint(context, mask, colourOf(region.number), strong, place);
    }
    context.setTransform(...place);
    const pen = penOf(1 / this.scale);
    for (const region of shown) marks(context, region, pen.in(colourOf(region.number)));
    if (draft) tool.draw(context, draft, pen.in(colourOf(desk.regions.free)));
    for (const region of shown) label(context, region, outlines.maskOf(region), 1 / this.scale, picture);
    if (cursor) crosshair(context, cursor, pen, picture);
  }

  #tint(context, mask, colour, strong, place) {
    const key = `${colour} ${strong} ${place}`;
    let layer = this.#layers.get(mask);
    if (layer?.key !== key) {
      layer = { key, canvas: tinted(mask, this.#canvas, colour, strong, place) };
      this.#layers.set(mask, layer);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(layer.canvas, 0, 0);
  }
}

/** A layer of one region: its area faintly, its contour in full. `place`: the transform of the picture. */
function tinted(mask, { width, height }, colour, strong, place) {
  const area = blank(width, height);
  const inside = area.getContext("2d");
  inside.imageSmoothingQuality = "high";
  inside.setTransform(...place);
  drawMask(inside, mask);
  inside.setTransform(1, 0, 0, 1, 0, 0);
  const layer = blank(width, height);
  const context = layer.getContext("2d");
  const thick = (strong ? 2.5 : 1.5) * (window.devicePixelRatio || 1);
  const grown = (by, paint) => {
    const ring = blank(width, height);
    const on = ring.getContext("2d");
    for (const [x, y] of AROUND) on.drawImage(area, x * by, y * by);
    fillWhere(on, "source-in", paint);
    context.drawImage(ring, 0, 0);
  };
  grown(thick + 1, HALO);
  grown(thick, colour);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(area, 0, 0);
  fillWhere(inside, "source-in", colour);
  context.globalCompositeOperation = "source-over";
  context.globalAlpha = strong ? 0.3 : 0.14;
  context.drawImage(area, 0, 0);
  return layer;
}

function fillWhere(context, composition, paint) {
  context.globalCompositeOperation = composition;
  context.fillStyle = paint;
  context.fillRect(0, 0, context.canvas.width, context.canvas.height);
}

/** Lines and dots that keep their thickness on the screen. `one`: a pixel of the page, in the picture's. */
function penOf(one, colour = "white") {
  return {
    in: (other) => penOf(one, other),
    line(context, trace) {
      context.setLineDash([6 * one, 4 * one]);
      for (const [paint, thick] of [[HALO, 3.5], [colour, 2]]) {
        context.beginPath();
        trace();
        context.strokeStyle = paint;
        context.lineWidth = thick * one;
        context.stroke();
      }
      context.setLineDash([]);
    },
    dot(context, [x, y], { crossed = false } = {}) {
      context.beginPath();
      context.arc(x, y, 5 * one, 0, 2 * Math.PI);
      context.fillStyle = crossed ? "white" : colour;
      context.fill();
      context.lineWidth = 2 * one;
      context.strokeStyle = crossed ? colour : "white";
      context.stroke();
      if (!crossed) return;
      context.beginPath();
      context.moveTo(x - 2.5 * one, y);
      context.lineTo(x + 2.5 * one, y);
      context.stroke();
    },
  };
}

function marks(context, region, pen) {
  if (isCut(region)) {
    if (region.box) {
      const [left, upper, right, lower] = region.box;
      pen.line(context, () => context.rect(left, upper, right - left, lower - upper));
    }
    for (const point of region.inside) pen.dot(context, middle(point));
    for (const point of region.outside) pen.dot(context, middle(point), { crossed: true });
  }
}

const middle = (point) => point.map((value) => value + 0.5);

function label(context, region, mask, one, picture) {
  const corner = cornerOf(isCut(region) && mask ? mask : region);
  const radius = 10 * one;
  const x = Math.min(Math.max(corner[0], radius), picture.width - radius);
  const y = Math.min(Math.max(corner[1], radius), picture.height - radius);
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colourOf(region.number);
  context.fill();
  context.lineWidth = 1.5 * one;
  context.strokeStyle = "white";
  context.stroke();
  context.fillStyle = "white";
  context.font = `600 ${12 * one}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(String(region.number), x, y + 0.5 * one);
}

function crosshair(context, [x, y], pen, picture) {
  pen.in("white").line(context, () => {
    context.moveTo(x, 0);
    context.lineTo(x, picture.height);
    context.moveTo(0, y);
    context.lineTo(picture.width, y);
  });
}
