// An outline, corner by corner.

const NEAR = 10; // pixels of the screen from the first corner, where a click closes the outline

export const polygon = {
  name: "polygon",
  label: "Polygon",
  key: "g",
  clicks: true,
  stays: true, // a draft outlives the pointer's release
  hint: "Click corner after corner; close with a click on the first one, a double click, or Enter. Escape leaves off.",

  begin(desk, point, draft) {
    const at = point.map(Math.round);
    if (draft === null) return { outline: [at], to: at };
    const { outline } = draft;
    if (outline.length >= 3 && distance(at, outline[0]) <= NEAR / desk.scale) return this.finish(desk, draft);
    if (distance(at, outline.at(-1)) < 1) return draft;
    return { outline: [...outline, at], to: at };
  },

  move: (desk, draft, point) => ({ ...draft, to: point }),
  end: (desk, draft) => draft,

  finish(desk, draft) {
    if (draft.outline.length < 3) {
      desk.say("An outline needs three corners at least.");
      return draft;
    }
    desk.regions.add({ kind: "polygon", outline: draft.outline });
    return null;
  },

  draw(context, { outline, to }, pen) {
    pen.line(context, () => {
      context.moveTo(...outline[0]);
      for (const point of [...outline.slice(1), to]) context.lineTo(...point);
    });
    for (const point of outline) pen.dot(context, point);
  },
};

const distance = (one, other) => Math.hypot(one[0] - other[0], one[1] - other[1]);
