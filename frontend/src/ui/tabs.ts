// The three books as tabs, moved through with the arrow keys.
import { all, need } from "./dom.ts";

export class Tabs {
  readonly #tabs = all<HTMLButtonElement>('[role="tab"]');
  readonly #shown: (name: string) => void;

  constructor(shown: (name: string) => void) {
    this.#shown = shown;
    for (const [index, tab] of this.#tabs.entries()) {
      tab.addEventListener("click", () => this.open(index));
      tab.addEventListener("keydown", (event) => this.#onKey(event, index));
    }
  }

  open(index: number): void {
    for (const [at, tab] of this.#tabs.entries()) {
      tab.setAttribute("aria-selected", String(at === index));
      tab.tabIndex = at === index ? 0 : -1;
      need(`#${tab.getAttribute("aria-controls")}`).hidden = at !== index;
    }
    this.#shown(this.#tabs[index]?.id.replace("tab-", "") ?? "");
  }

  #onKey(event: KeyboardEvent, index: number): void {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step === 0) return;
    const next = (index + step + this.#tabs.length) % this.#tabs.length;
    this.open(next);
    this.#tabs[next]?.focus();
  }
}
