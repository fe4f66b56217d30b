// Two fingers enlarge the picture and move it about.

/** @param desk has `seen`. @param begin called when the second finger comes. @param redraw called on changes. */
export function startPinch(canvas, desk, { begin, redraw }) {
  const fingers = new Map(); // where they are in the window
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch") return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) begin();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = [...fingers.values()];
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size !== 2) return;
    const after = [...fingers.values()];
    const point = desk.seen.pointAt(partsOf(canvas, middle(before)));
    desk.seen.enlarge(span(after) / span(before), point);
    const [x, y] = desk.seen.pointAt(partsOf(canvas, middle(after)));
    desk.seen.move([point[0] - x, point[1] - y]); // what lay between the fingers goes with them
    redraw();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
}

/** A place of the window in parts of the canvas' sides. */
export function partsOf(canvas, [x, y]) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return [(x - left) / width, (y - top) / height];
}

const middle = ([one, other]) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
const span = ([one, other]) => Math.max(Math.hypot(one[0] - other[0], one[1] - other[1]), 1);
