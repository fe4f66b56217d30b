// Light or dark: the system's, or what the reader chose.

const KEPT = "gar-theme";
const ORDER = ["auto", "light", "dark"];
const SAID = { auto: "Auto", light: "Light", dark: "Dark" };

/** Let a button go through auto, light and dark; the choice is remembered. */
export function startTheme(button) {
  const show = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = SAID[theme];
    button.setAttribute("aria-label", `Light or dark: ${SAID[theme]}`);
  };
  const kept = localStorage.getItem(KEPT);
  show(ORDER.includes(kept) ? kept : "auto");
  button.addEventListener("click", () => {
    const next = ORDER[(ORDER.indexOf(document.documentElement.dataset.theme) + 1) % ORDER.length];
    localStorage.setItem(KEPT, next);
    show(next);
  });
}
