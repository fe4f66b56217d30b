// The list of regions.

import { badge } from "./answers.js";
import { byId, element } from "./dom.js";

/**
 * Show the regions as cards.
 *
 * @param regions the `Regions`. @param outlines the `Outlines`. @param used whether a number is in the question.
 * @param use called with a number and whether it shall be. @param ticks what a tick says: "ask about", "describe".
 */
export function showCards({ regions, outlines, used, use, ticks }) {
  const list = byId("cards");
  const focused = document.activeElement?.dataset?.stays; // cards are made anew: the focus goes on
  list.replaceChildren(...regions.all.map((region) => card(region, { regions, outlines, used, use, ticks })));
  byId("no-regions").hidden = regions.all.length > 0;
  byId("clear").hidden = regions.all.length === 0;
  if (focused) list.querySelector(`[data-stays="${CSS.escape(focused)}"]`)?.focus();
}

function card(region, { regions, outlines, used, use, ticks }) {
  const { number } = region;
  const chosen = regions.chosen === number;
  const name = element("button", {
    type: "button", class: "name plain", "aria-pressed": String(chosen), "data-stays": `name ${number}`,
    title: "Choose: tools go on with this region", onclick: () => regions.choose(chosen ? null : number),
  }, badge(number), element("span", { class: "kind" }, region.kind));
  const tick = element("input", {
    type: "checkbox", "data-stays": `tick ${number}`, onchange: (event) => use(number, event.target.checked),
    "aria-label": `${ticks[0].toUpperCase()}${ticks.slice(1)} region ${number}`,
  });
  tick.checked = used(number);
  const marks = element("div", { class: "ticks" }, element("label", { class: "check" }, tick, ticks));
  if (region.kind === "box" && !region.inside.length && !region.outside.length) marks.append(asItIs(region, regions));
  const remove = element("button", {
    type: "button", class: "plain remove", "aria-label": `Remove region ${number}`, title: "Remove",
    onclick: () => regions.remove(number),
  }, "×");
  const said = outlineSaid(outlines.of(region));
  return element("li", { class: chosen ? "region chosen" : "region" }, name, marks, remove,
    ...(said ? [element("p", { class: "quiet" }, said)] : []));
}

function asItIs(region, regions) {
  const box = element("input", {
    type: "checkbox", "data-stays": `as-is ${region.number}`, "aria-label": `Region ${region.number}: the whole box`,
    onchange: () => regions.change(region.number, { ...region, asIs: !region.asIs }),
  });
  box.checked = region.asIs;
  const title = "Take the box itself, not what stands out in it";
  return element("label", { class: "check", title }, box, "whole box");
}

function outlineSaid(outline) {
  if (outline?.state === "asked") return "Cutting it out…";
  return outline?.said ?? "";
}
