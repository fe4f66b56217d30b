// Cards of questions and their answers, filled as they come.

import { colourOf } from "./regions.js";
import { copyButtons } from "./copy.js";
import { element } from "./dom.js";
import { percent, tintedWords, tokenTable, wordsOf } from "./words.js";

const STAGES = ["preprocess", "encode", "replay", "prefill", "decode"];
const ENDS = {
  length: "Cut off: the tokens allowed were used up.",
  timeout: "Cut off: the time was over.",
  cancelled: "Stopped.",
};

/** One request's card. `onFollow(answer)`: the reader wants to ask on. */
export class AnswerCard {
  #parts;
  #waiting = 0;

  /** The answer that came last; null: none has. */
  last = null;

  constructor(request, { scene, onFollow }) {
    this.request = request;
    this.onFollow = onFollow;
    this.#parts = request.about.map((about) => new Part(about, request));
    this.#waiting = this.#parts.length;
    const { length } = this.#parts;
    const title = request.question ?? (length === 1 ? "Described" : `${length} regions described`);
    this.notes = element("ul", { class: "notes" });
    this.foot = element("div", { class: "foot" }, copyButtons(request, scene));
    const parts = this.#parts.map((part) => part.element);
    this.element = element("li", { class: "card" }, element("p", { class: "asked" }, title),
      element("div", { class: "parts", "aria-live": "polite", "aria-busy": "true" }, ...parts), this.notes, this.foot);
    if (request.note) this.warn(request.note);
  }

  /** An event of the answer: text, answer, error or warning. */
  take(event, data) {
    const part = this.#parts[data.index ?? 0];
    if (event === "text") part.add(data.text);
    if (event === "warning") this.warn(data.text);
    if (event === "error" && data.index === undefined) this.fail(data.error.message);
    else if (event === "error") part.end(element("p", { class: "problem" }, data.error.message));
    if (event === "answer") {
      this.#waiting -= 1;
      this.last = data;
      part.answer(data);
      if (this.onFollow && data.finish_reason !== "cancelled") this.#offerFollow(data);
    }
  }

  warn(text) {
    this.notes.append(element("li", {}, text));
  }

  /** End what is unanswered, with a reason. */
  fail(reason) {
    this.element.append(element("p", { class: "problem" }, reason));
    this.stop("");
  }

  /** End what is unanswered; `said` tells why. */
  stop(said) {
    for (const part of this.#parts) part.end(said && element("p", { class: "quiet" }, said));
    this.element.querySelector(".parts").setAttribute("aria-busy", "false");
  }

  /** Whether all answers have come. */
  get complete() {
    return this.#waiting <= 0;
  }

  #offerFollow(answer) {
    const follow = () => this.onFollow(answer);
    this.foot.prepend(element("button", { type: "button", class: "plain", onclick: follow }, "Follow up"));
  }
}

/** The answer about one region, or about those of one question. */
class Part {
  #done = false;

  constructor(about, request) {
    this.request = request;
    this.text = element("p", { class: "said" });
    this.more = element("div", { class: "more" });
    const badges = about.map(([number]) => badge(number));
    this.element = element("div", { class: "part waiting" }, element("div", { class: "badges" }, ...badges),
      element("div", { class: "body" }, this.text, this.more));
  }

  add(text) {
    this.text.append(text);
  }

  answer(data) {
    const words = data.logprobs?.length ? wordsOf(data.text, data.logprobs) : null;
    if (words) this.text.replaceChildren(...tintedWords(words));
    else this.text.textContent = data.text;
    if (data.choices) this.more.append(bars(data));
    if (data.choices?.length && data.value === null) this.text.append(element("i", {}, "None is likely enough."));
    if (data.confidence) {
      const { mean, lowest } = data.confidence;
      const said = `Confidence ${percent(mean)}, lowest ${percent(lowest)}`;
      this.more.append(element("p", { class: "quiet confidence" }, said));
    }
    if (words) this.more.append(tokenTable(words));
    const reason = ENDS[data.finish_reason];
    if (reason) this.more.append(element("p", { class: "quiet" }, reason));
    this.more.append(facts(data));
    this.end("");
  }

  end(said) {
    if (this.#done) return;
    this.#done = true;
    this.element.classList.remove("waiting");
    if (said) this.more.append(said);
  }
}

/** A region's number in its colour. */
export function badge(number) {
  const made = element("span", { class: "badge", "aria-label": `Region ${number}` }, String(number));
  made.style.setProperty("--colour", colourOf(number));
  return made;
}

function bars({ choices, value }) {
  const likeliest = [...choices].sort((one, other) => other.probability - one.probability);
  return element("ul", { class: "bars" }, ...likeliest.map(({ text, probability }) => {
    const bar = element("span", { class: "fill" });
    bar.style.width = `${100 * probability}%`;
    return element("li", { class: text === value ? "taken" : "" },
      element("span", { class: "name" }, text),
      element("span", { class: "track", "aria-hidden": "true" }, bar),
      element("span", { class: "figure" }, percent(probability)));
  }));
}

function facts({ timings_ms: time, reuse, tokens, prompt_tokens: prompt, grid, model }) {
  const stages = STAGES.map((name) => `${name} ${milliseconds(time[name])}`);
  const { tiles_encoded: encoded, tiles_reused: spared, tokens_prefilled: computed, tokens_reused: kept } = reuse;
  const count = `${tokens.length} ${tokens.length === 1 ? "token" : "tokens"}`;
  const short = `${count} in ${milliseconds(time.total)}, the first after ${milliseconds(time.first_token)}`;
  return element("details", { class: "facts" }, element("summary", {}, short), element("ul", {},
    element("li", {}, stages.join(", ")),
    element("li", {}, `${encoded} of ${encoded + spared} tiles encoded, ${spared} taken over`),
    element("li", {}, `${prompt} tokens of prompt: ${computed} computed, ${kept} taken over`),
    element("li", {}, `${model}, grid ${grid.join(" x ")}`)));
}

const milliseconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
