// An answer's words, tinted by how likely the model found them.

import { element } from "./dom.js";

/**
 * Words of an answer: `{text, probability, tokens}` each, their texts joined being the answer's; null where the tokens
 * do not spell it (half characters). What comes after the text, such as the token that ends it, is left out.
 *
 * @param text the answer's. @param logprobs of its tokens: text, logprob, likeliest.
 */
export function wordsOf(text, logprobs) {
  const words = [];
  let spelt = "";
  for (const token of logprobs) {
    const piece = spelt === "" ? token.text.trimStart() : token.text;
    if (spelt.length >= text.length || !text.startsWith(spelt + piece)) break;
    spelt += piece;
    if (words.length === 0 || /^\s/.test(piece)) words.push({ text: "", logprob: 0, tokens: [] });
    const word = words.at(-1);
    word.text += piece;
    word.logprob += token.logprob;
    word.tokens.push(token);
  }
  if (spelt !== text) return null;
  return words.map((word) => ({ text: word.text, probability: Math.exp(word.logprob), tokens: word.tokens }));
}

/** "98.2 %" */
export const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

/** The words as elements; doubtful ones are marked, in three steps. */
export function tintedWords(words) {
  return words.flatMap(({ text, probability }) => [text.slice(0, text.search(/\S|$/)),
    element("span", { class: `word sure-${stepOf(probability)}`, title: percent(probability) }, text.trimStart())]);
}

/** A table of tokens and what might have stood in their place. */
export function tokenTable(words) {
  const rows = words.flatMap((word) => word.tokens).map(({ text, logprob, likeliest = [] }) => {
    const others = likeliest.filter((other) => other.text !== text);
    const said = others.map((other) => `${other.text.trim() || "(end)"} ${percent(Math.exp(other.logprob))}`);
    return element("tr", {},
      element("th", { scope: "row" }, text.trim() || text),
      element("td", {}, percent(Math.exp(logprob))),
      element("td", { class: "quiet" }, said.join(", ")));
  });
  const head = ["Token", "Likely", "Otherwise"].map((text) => element("th", { scope: "col" }, text));
  return element("details", {},
    element("summary", {}, "Probabilities"),
    element("table", { class: "tokens" },
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...rows)));
}

function stepOf(probability) {
  if (probability >= 0.9) return 3;
  return probability >= 0.6 ? 2 : 1;
}
