// The theme button: system, light, dark, and back.
import { need, setIcon } from "./dom.ts";

type Theme = "system" | "light" | "dark";

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
const SAID: Record<Theme, string> = { system: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const ICON: Record<Theme, string> = { system: "system", light: "sun", dark: "moon" };
const KEY = "orderwire.theme";

export function themeButton(): void {
  const button = document.querySelector<HTMLButtonElement>("#theme");
  if (button === null) return;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let theme = kept();
  const show = (): void => {
    const dark = theme === "dark" || (theme === "system" && system.matches);
    document.documentElement.dataset["theme"] = dark ? "orderwire-dark" : "orderwire-light";
    button.title = SAID[theme];
    button.setAttribute("aria-label", SAID[theme]);
    setIcon(need("svg", button), ICON[theme]);
  };
  button.addEventListener("click", () => {
    theme = NEXT[theme];
    keep(theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}

function kept(): Theme {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

function keep(theme: Theme): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // Private windows may refuse storage; the choice then lasts as long as the page.
  }
}
