// Short messages in the corner, and the quiet voice for people who listen to the page.
import { icon, make, need } from "./dom.ts";

export type Tone = "good" | "bad" | "info" | "wait";

const ICONS: Record<Tone, string> = { good: "good", bad: "bad", info: "info", wait: "pending" };
const STAY: Record<Tone, number> = { good: 5000, info: 5000, wait: 8000, bad: 12_000 };
const MOST = 4;
const VOICE_EVERY = 1500;

export interface Message {
  tone: Tone;
  title: string;
  text?: string;
  action?: { label: string; run: () => void };
  /** A message with the same key is replaced instead of joined. */
  key?: string;
}

export class Toasts {
  readonly #region = need("#toasts");
  #more = 0;

  show(message: Message): void {
    if (message.key !== undefined) this.#drop(message.key);
    while (this.#region.querySelectorAll(".toast-card:not(.is-more)").length >= MOST) this.#squeeze();
    this.#region.append(this.#card(message));
  }

  #card(message: Message): HTMLElement {
    const card = make("div", `toast-card tone-${message.tone}`);
    card.setAttribute("role", message.tone === "bad" ? "alert" : "status");
    if (message.key !== undefined) card.dataset["key"] = message.key;
    const text = make("div", "toast-text");
    text.append(make("b", "", message.title));
    if (message.text) text.append(make("p", "", message.text));
    card.append(icon(ICONS[message.tone]), text);
    if (message.action) card.append(this.#button(message.action, card));
    card.append(this.#close(card));
    this.#fade(card, STAY[message.tone]);
    return card;
  }

  #button(action: { label: string; run: () => void }, card: HTMLElement): HTMLButtonElement {
    const button = make("button", "btn btn-xs", action.label);
    button.type = "button";
    button.addEventListener("click", () => {
      card.remove();
      action.run();
    });
    return button;
  }

  #close(card: HTMLElement): HTMLButtonElement {
    const button = make("button", "quiet is-small");
    button.type = "button";
    button.setAttribute("aria-label", "Dismiss");
    button.append(icon("close"));
    button.addEventListener("click", () => card.remove());
    return button;
  }

  /** A message stays while it is pointed at or holds the focus. */
  #fade(card: HTMLElement, after: number): void {
    const timer = setInterval(() => {
      if (card.matches(":hover, :focus-within") || document.hidden) return;
      clearInterval(timer);
      card.remove();
      if (this.#region.querySelectorAll(".toast-card:not(.is-more)").length < MOST) this.#forgetMore();
    }, after);
  }

  #drop(key: string): void {
    for (const card of this.#region.querySelectorAll<HTMLElement>(".toast-card")) {
      if (card.dataset["key"] === key) card.remove();
    }
  }

  #squeeze(): void {
    this.#region.querySelector(".toast-card:not(.is-more)")?.remove();
    this.#more += 1;
    this.#region.querySelector(".is-more")?.remove();
    const card = make("div", "toast-card is-more", `and ${this.#more} more`);
    this.#region.prepend(card);
    this.#fade(card, STAY.info);
  }

  #forgetMore(): void {
    this.#more = 0;
    this.#region.querySelector(".is-more")?.remove();
  }
}

/** Says changes to screen readers, at most one sentence at a time, many at once as a number. */
export class Voice {
  readonly #region = need("#said");
  #waiting: string[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  say(sentence: string): void {
    this.#waiting.push(sentence);
    this.#timer ??= setTimeout(() => this.#speak(), 150);
  }

  #speak(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (waiting.length === 0) {
      this.#timer = undefined;
      return;
    }
    this.#region.textContent = waiting.length <= 2 ? waiting.join(". ") : `${waiting.length} orders changed. ${waiting.at(-1)}`;
    this.#timer = setTimeout(() => this.#speak(), VOICE_EVERY);
  }
}
