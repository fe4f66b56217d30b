// A box from corner to corner.

export const box = {
  name: "box",
  label: "Box",
  key: "x",
  hint: "Drag from corner to corner. What stands out inside the box becomes the region.",

  begin: (desk, point) => ({ from: point, to: point }),

  move: (desk, draft, point) => ({ ...draft, to: point }),

  end(desk, draft) {
    const corners = cornersOf(draft).map(Math.round);
    const [left, upper, right, lower] = corners;
    if (right - left < 2 || lower - upper < 2) {
      desk.say("A box needs some width and height: drag from one corner to the other.");
      return null;
    }
    desk.regions.add({ kind: "box", box: corners, asIs: false, inside: [], outside: [] });
    return null;
  },

  draw(context, draft, pen) {
    const [left, upper, right, lower] = cornersOf(draft);
    pen.line(context, () => context.rect(left, upper, right - left, lower - upper));
  },
};

const cornersOf = ({ from, to }) => [
  Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1]),
];
