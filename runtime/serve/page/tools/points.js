// Points inside a thing and outside it.

export const points = {
  name: "points",
  label: "Points",
  key: "p",
  clicks: true,
  hint: "Click inside a thing. Points outside it (right click, or Shift) correct what it became, or what a box became.",

  begin(desk, point, _, { other }) {
    const outside = desk.outside !== other;
    const region = desk.regions.get(desk.regions.chosen);
    const within = point.map((value, axis) => Math.min(Math.floor(value), [desk.width, desk.height][axis] - 1));
    if (region?.kind === "points" || (region?.kind === "box" && !region.asIs)) {
      const list = outside ? "outside" : "inside";
      desk.regions.change(region.number, { ...region, [list]: [...region[list], within] });
    } else if (outside) {
      desk.say("First a point inside, then those outside.");
    } else {
      desk.regions.add({ kind: "points", inside: [within], outside: [] });
    }
    return null;
  },

  move: (desk, draft) => draft,
  end: (desk, draft) => draft,
  draw() {},
};
