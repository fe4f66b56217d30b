// The ways in which a picture comes: files, the camera, dropped, pasted.

import { byId } from "./dom.js";
import { pictureIn } from "./picture.js";

/** Call `take(file)` with each picture that comes, `refuse(message)` where something else does. */
export function startIntake(take, refuse) {
  for (const [button, field] of [["choose", "file"], ["photograph", "camera"]]) {
    byId(button).addEventListener("click", () => byId(field).click());
    byId(field).addEventListener("change", ({ target }) => {
      if (target.files[0]) take(target.files[0]);
      target.value = "";
    });
  }
  const place = byId("stage");
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      place.classList.toggle("over", kind === "dragover");
      if (kind !== "drop") return;
      const picture = pictureIn(event.dataTransfer);
      if (picture) take(picture);
      else refuse("That is not a picture file.");
    });
  }
  document.addEventListener("paste", (event) => {
    const picture = pictureIn(event.clipboardData);
    if (picture) take(picture);
  });
}
