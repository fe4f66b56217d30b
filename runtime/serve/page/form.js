// The question and how it is to be answered.

import { byId, element } from "./dom.js";
import { badge } from "./answers.js";

const GO = { ask: "Ask", describe: "Describe", choose: "Choose" };

/** Fires "change" when the mode or the question changes. */
export class Form extends EventTarget {
  #left = new Set(); // numbers that are not to be described
  #names = null;

  constructor() {
    super();
    this.question = byId("question");
    this.question.addEventListener("input", () => this.#changed());
    this.question.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      byId("form").requestSubmit();
    });
    for (const radio of this.#modes()) radio.addEventListener("change", () => this.#changed());
    byId("abstain").addEventListener("input", () => this.#changed());
    this.#changed();
  }

  /** Take the model's names and the server's limits. */
  start(names, limits) {
    this.#names = names;
    if (limits?.question) this.question.maxLength = limits.question;
    if (limits?.tokens) byId("tokens").max = limits.tokens;
    this.question.placeholder = `What colour is ${names.of(0)}?`;
  }

  get mode() {
    return this.#modes().find((radio) => radio.checked).value;
  }

  set mode(mode) {
    for (const radio of this.#modes()) radio.checked = radio.value === mode;
    this.#changed();
  }

  /** What a region's tick says. */
  get ticks() {
    return this.mode === "describe" ? "describe" : "ask about";
  }

  /** Write a question for the reader. */
  fill({ mode, question = "", choices = [] }) {
    this.question.value = question;
    byId("choices").value = choices.join(", ");
    this.mode = mode;
  }

  /** Whether a region is in the question, or to be described. */
  uses(number) {
    return this.mode === "describe" ? !this.#left.has(number) : this.#names.in(this.question.value).includes(number);
  }

  /** Put a region into the question, or take it out. */
  use(number, wanted) {
    if (this.mode === "describe") {
      if (wanted) this.#left.delete(number);
      else this.#left.add(number);
    } else if (wanted) {
      return this.insert(number);
    } else {
      this.question.value = this.#names.without(this.question.value, number);
    }
    this.#changed();
  }

  /** Write a region's name where the caret is. */
  insert(number) {
    const { selectionStart: from, selectionEnd: to, value } = this.question;
    const before = value.slice(0, from);
    const after = value.slice(to);
    const name = (/\S$/.test(before) ? " " : "") + this.#names.of(number) + (/^\w/.test(after) ? " " : "");
    this.question.setRangeText(name, from, to, "end");
    this.question.focus();
    this.#changed();
  }

  /** Offer the regions' names to be inserted. */
  showChips(regions) {
    byId("chips").replaceChildren(...regions.map(({ number }) => {
      const title = `Insert ${this.#names.of(number)}`;
      const onclick = () => this.insert(number);
      return element("button", { type: "button", class: "chip", title, "aria-label": title, onclick }, badge(number));
    }));
  }

  /** Offer an example's questions. */
  showReady(questions) {
    byId("ready").hidden = questions.length === 0;
    byId("ready").replaceChildren(...questions.map((one) => element("button", {
      type: "button", class: "chip", onclick: () => { this.fill(one); byId("go").focus(); },
    }, one.label ?? one.question)));
  }

  /** Say that what is asked goes on a conversation; `leave` ends it. null: it does not. */
  showConversation(numbers, leave) {
    const place = byId("conversation");
    place.hidden = numbers === null;
    if (numbers !== null) {
      place.replaceChildren("Going on about ", ...numbers.map(badge), " ",
        element("button", { type: "button", class: "plain", onclick: leave }, "New conversation"));
    }
    for (const radio of this.#modes()) radio.disabled = numbers !== null && radio.value !== "ask";
  }

  /** What is set: what `requestOf` takes. @param numbers of all regions. */
  wanted(numbers) {
    const options = {};
    if (byId("sure").checked) options.logprobs = 3;
    for (const [field, name] of [["tokens", "max_new_tokens"], ["temperature", "temperature"], ["seed", "seed"]]) {
      if (byId(field).value !== "") options[name] = Number(byId(field).value);
    }
    return {
      mode: this.mode,
      question: this.question.value,
      choices: byId("choices").value,
      abstain: Number(byId("abstain").value) / 100,
      ticked: numbers.filter((number) => !this.#left.has(number)),
      options,
    };
  }

  #modes() {
    return [...document.querySelectorAll("input[name=mode]")];
  }

  #changed() {
    const { mode } = this;
    byId("question-part").hidden = mode === "describe";
    byId("describe-part").hidden = mode !== "describe";
    byId("choices-part").hidden = mode !== "choose";
    byId("abstain-said").textContent = `${byId("abstain").value} %`;
    byId("go").textContent = GO[mode];
    this.dispatchEvent(new Event("change"));
  }
}
