// Menus made of <details>: one open at a time, closed by Escape or a click elsewhere.
import { all } from "./dom.ts";

export function menus(): void {
  const found = all<HTMLDetailsElement>("details.menu");
  for (const menu of found) {
    menu.addEventListener("toggle", () => {
      if (menu.open) for (const other of found) if (other !== menu) other.open = false;
    });
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      menu.open = false;
      menu.querySelector("summary")?.focus();
    });
  }
  document.addEventListener("pointerdown", (event) => {
    for (const menu of found) if (menu.open && !menu.contains(event.target as Node)) menu.open = false;
  });
}
