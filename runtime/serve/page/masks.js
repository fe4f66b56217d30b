// Masks on canvases: what is opaque is the region.

const urls = new WeakMap(); // of shapes, which never change

/** Draw a brushed or outlined shape, or a mask from the server, opaque in the context's fill colour. */
export function drawMask(context, shape) {
  if (shape.kind === "polygon") return fillOutline(context, shape.outline);
  if (shape.kind === "brush") return drawStrokes(context, shape);
  if (shape.kind === "mask") return context.drawImage(shape.canvas, 0, 0);
  const [left, upper, right, lower] = shape.box;
  return context.fillRect(left, upper, right - left, lower - upper);
}

/** The mask as a PNG in a data: URL, white on black, hard at its edges. */
export function maskUrl(shape, width, height) {
  if (!urls.has(shape)) urls.set(shape, hard(shape, width, height).url());
  return urls.get(shape);
}

/** How many pixels a brushed shape holds. */
export const areaOf = (shape, width, height) => hard(shape, width, height).area;

/** A mask of the server's, grey in a data: URL, as a shape to draw. `box`: its extent. */
export async function maskShape(url, box) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = blank(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) pixels.data[at + 3] = pixels.data[at] >= 128 ? 255 : 0;
  context.putImageData(pixels, 0, 0);
  return { kind: "mask", canvas, corner: box.slice(0, 2) };
}

/** An empty canvas. */
export function blank(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function hard(shape, width, height) {
  const canvas = blank(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  drawMask(context, shape);
  const pixels = context.getImageData(0, 0, width, height);
  let area = 0;
  for (let at = 0; at < pixels.data.length; at += 4) {
    const value = pixels.data[at + 3] >= 128 ? 255 : 0;
    area += value & 1;
    pixels.data.fill(value, at, at + 3);
    pixels.data[at + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return { area, url: () => canvas.toDataURL("image/png") };
}

function fillOutline(context, outline) {
  context.beginPath();
  for (const [x, y] of outline) context.lineTo(x, y);
  context.closePath();
  context.fill();
}

function drawStrokes(context, { base, strokes }) {
  if (base) drawMask(context, base);
  context.save();
  context.lineCap = "round";
  context.lineJoin = "round";
  context.strokeStyle = context.fillStyle;
  for (const { erase, width, path } of strokes) {
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(...path[0]);
    for (const point of path.length === 1 ? path : path.slice(1)) context.lineTo(...point);
    context.stroke();
  }
  context.restore();
}
