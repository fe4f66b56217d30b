// Regions' names in questions, such as <Prompt0>.

/** @param list the names that the model knows, in the order of their numbers. */
export class Names {
  constructor(list) {
    this.list = list;
    this.count = list.length;
    const [before, after] = list[0].split(/\d+/).map((text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    this.pattern = new RegExp(`${before}(\\d+)${after}`, "g");
  }

  /** The name of a number, also of one beyond those that the model knows. */
  of(number) {
    return this.list[0].replace(/\d+/, number);
  }

  /** The numbers that a text names, each once, in their order. */
  in(text) {
    return [...new Set([...text.matchAll(this.pattern)].map(([, number]) => Number(number)))];
  }

  /** Numbers that the model knows for these: their own where it knows them, else free ones. */
  assign(numbers) {
    const free = this.list.map((_, number) => number).filter((number) => !numbers.includes(number));
    return new Map(numbers.map((number) => [number, number < this.count ? number : free.shift()]));
  }

  /** The text with every name as `assigned` has it. */
  rename(text, assigned) {
    return text.replace(this.pattern, (name, number) => this.of(assigned.get(Number(number)) ?? number));
  }

  /** The text without a name, and without the space that it leaves. */
  without(text, number) {
    const rest = text.replace(this.pattern, (name, other) => (Number(other) === number ? "" : name));
    return rest.replace(/ {2,}/g, " ").trim();
  }
}
