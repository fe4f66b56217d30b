// Keys that work anywhere on the page, and the list that tells of them.

import { element } from "./dom.js";

const OVER_THE_PICTURE = [
  ["Arrows", "move the cross over the picture; with Shift by one pixel"],
  ["Space", "press and release: a corner, a point, the beginning and end of a stroke"],
  ["Enter", "close an outline"],
];

/**
 * Call actions at their keys, except where somebody types or a dialog is open.
 *
 * @param actions `{key, says, run}`; key as in "n", "Delete", "Control+z", "Control+Shift+z".
 */
export function startKeys(actions) {
  const byKey = new Map(actions.map((action) => [action.key, action]));
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key !== "Escape" && typesIn(event.target)) return;
    const control = event.ctrlKey || event.metaKey ? "Control+" : "";
    const shift = control && event.shiftKey ? "Shift+" : "";
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = byKey.get(`${control}${shift}${name}`);
    if (action && action.run() !== false) event.preventDefault();
  });
}

/** Fill a definition list with the keys. */
export function listKeys(list, actions) {
  const told = [...OVER_THE_PICTURE, ...actions.filter(({ says }) => says).map(({ key, says }) => [nameOf(key), says])];
  list.replaceChildren(...told.flatMap(([key, says]) =>
    [element("dt", {}, element("kbd", {}, key)), element("dd", {}, says)]));
}

const nameOf = (key) => key.replace("Control", "Ctrl").replace(/(^|\+)[a-z]$/, (last) => last.toUpperCase());

function typesIn(target) {
  if (target.isContentEditable || ["TEXTAREA", "SELECT"].includes(target.tagName)) return true;
  return target.tagName === "INPUT" && !["checkbox", "radio", "range", "button"].includes(target.type);
}
