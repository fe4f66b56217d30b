// What the reader set, as a request to the server.

import { jsonOf } from "./shapes.js";

/** Something that the reader can put right. `field`: the id of the element where. */
export class Unfinished extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

/**
 * A request: `{path, body, about, question, note}`. about: of each answer the regions' numbers, `[number, asked]`.
 *
 * @param wanted mode ("ask", "describe", "choose"), question, choices, abstain, ticked (numbers to describe), options.
 * @param regions all of the picture. @param names the model's `Names`. @param picture its width and height.
 * @param conversation what is gone on with, or null. @param limits the server's.
 */
export function requestOf(wanted, { regions, names, picture, conversation, limits }) {
  if (wanted.mode === "describe") return describing(wanted, { regions, picture, limits });
  if (conversation) return goingOn(wanted, { names, conversation });
  const { question, regions: named, about, note } = asking(wanted, { regions, names, picture });
  const body = { question, regions: named, ...wanted.options };
  if (wanted.mode === "ask") return { path: "ask", body, about: [about], question, note };
  const choices = wanted.choices.split(",").map((text) => text.trim()).filter(Boolean);
  if (choices.length < 2) throw new Unfinished("Give two choices at least, with commas between.", "choices");
  const chosen = { question, regions: named, choices };
  if (wanted.abstain > 0) chosen.abstain_below = wanted.abstain;
  return { path: "choose", body: chosen, about: [about], question, note };
}

function asking({ question }, { regions, names, picture }) {
  const text = question.trim();
  if (text === "") throw new Unfinished("Write a question.", "question");
  const numbers = names.in(text);
  const first = regions[0] ? names.of(regions[0].number) : null;
  if (first === null) throw new Unfinished("Draw a region first: the model answers about regions.", "canvas");
  if (numbers.length === 0) throw new Unfinished(`Say which region: put ${first} into the question.`, "question");
  if (numbers.length > names.count) {
    const said = `A question takes ${names.count} regions at most; this one names ${numbers.length}.`;
    throw new Unfinished(said, "question");
  }
  const assigned = names.assign(numbers);
  const named = {};
  for (const number of numbers) {
    const region = regions.find((one) => one.number === number);
    if (!region) throw new Unfinished(`${names.of(number)} is not drawn.`, "question");
    named[assigned.get(number)] = jsonOf(region, picture);
  }
  const note = noteOf(assigned, names);
  return { question: names.rename(text, assigned), regions: named, about: [...assigned], note };
}

function describing({ ticked, options }, { regions, picture, limits }) {
  const chosen = regions.filter(({ number }) => ticked.includes(number));
  if (chosen.length === 0) {
    throw new Unfinished(regions.length ? "Tick a region to describe." : "Draw a region first.", "canvas");
  }
  if (limits?.regions && chosen.length > limits.regions) {
    throw new Unfinished(`This server describes ${limits.regions} regions at once, not ${chosen.length}.`, "canvas");
  }
  const body = { regions: chosen.map((region) => jsonOf(region, picture)), ...options };
  return { path: "describe", body, about: chosen.map(({ number }) => [[number, null]]), question: null, note: "" };
}

function goingOn({ question, options }, { names, conversation }) {
  const text = question.trim();
  if (text === "") throw new Unfinished("Write a question.", "question");
  const foreign = names.in(text).find((number) => !conversation.assigned.has(number));
  if (foreign !== undefined) {
    const said = `${names.of(foreign)} is not in this conversation. Begin a new one to ask about it.`;
    throw new Unfinished(said, "question");
  }
  const asked = names.rename(text, conversation.assigned);
  const body = { regions: conversation.regions, turns: conversation.turns, question: asked, ...options };
  const note = noteOf(conversation.assigned, names);
  return { path: "chat", body, about: [[...conversation.assigned]], question: asked, note };
}

function noteOf(assigned, names) {
  const moved = [...assigned].filter(([number, asked]) => number !== asked);
  return moved.map(([number, asked]) => `${names.of(number)} is asked about as ${names.of(asked)}.`).join(" ");
}
