// The server's key: asked for once, kept until the tab is closed.

import { byId } from "./dom.js";

const KEPT = "gar-key";
let asking = null;

/** The key in use, or null. */
export const currentKey = () => sessionStorage.getItem(KEPT);

/**
 * Ask for a key. `refused`: the key that was not accepted, null where none was sent.
 * Resolves to the key, or to null where the reader gave none. Callers at the same time share one question.
 */
export function askForKey(refused) {
  if (currentKey() !== refused) return Promise.resolve(currentKey()); // another caller has asked meanwhile
  asking ??= show(refused).finally(() => { asking = null; });
  return asking;
}

function show(refused) {
  const dialog = byId("key-dialog");
  const field = byId("key");
  field.value = "";
  byId("key-refused").hidden = refused === null;
  dialog.returnValue = "leave";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const key = dialog.returnValue === "use" ? field.value.trim() : "";
      field.value = "";
      if (key !== "") sessionStorage.setItem(KEPT, key);
      resolve(key === "" ? null : key);
    }, { once: true });
  });
}
