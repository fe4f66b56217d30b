// Pictures that come with the page, with regions and questions.

import { byId, element } from "./dom.js";

const FOLDER = new URL("examples/", import.meta.url);

/** Show the examples as buttons; `open(blob, example)` is called with the one that is taken. */
export async function showExamples(open, failed) {
  try {
    const list = await (await fetch(new URL("examples.json", FOLDER))).json();
    byId("examples").replaceChildren(...list.map((example) => {
      const address = new URL(example.picture, FOLDER);
      const take = async () => {
        try {
          await open(await (await fetch(address)).blob(), example);
        } catch (error) {
          failed(error);
        }
      };
      return element("button", { type: "button", class: "example", onclick: take },
        element("img", { src: address.href, alt: "" }), element("span", {}, example.name),
        element("span", { class: "quiet" }, example.note));
    }));
  } catch (error) {
    failed(error);
  }
}
