// Symbol search in the ticket: suggestions from the account's own broker, chosen by keyboard or pointer.
import type { Found } from "../core/ticket.ts";
import { make } from "./dom.ts";
import { get } from "./http.ts";

const WAIT = 120;

export class SymbolSearch {
  readonly #input: HTMLInputElement;
  readonly #list: HTMLUListElement;
  readonly #account: () => string;
  readonly #choose: (found: Found) => void;
  #found: Found[] = [];
  #active = -1;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #asking: AbortController | undefined;

  constructor(options: {
    input: HTMLInputElement;
    list: HTMLUListElement;
    account: () => string;
    choose: (found: Found) => void;
  }) {
    this.#input = options.input;
    this.#list = options.list;
    this.#account = options.account;
    this.#choose = options.choose;
    this.#input.addEventListener("input", () => this.#ask());
    this.#input.addEventListener("keydown", (event) => this.#onKey(event));
    this.#input.addEventListener("blur", () => this.#close());
    this.#list.addEventListener("pointerdown", (event) => this.#onPointer(event));
  }

  #ask(): void {
    clearTimeout(this.#timer);
    this.#asking?.abort();
    const text = this.#input.value.trim();
    if (text === "") {
      this.#close();
      return;
    }
    this.#timer = setTimeout(() => void this.#fetch(text), WAIT);
  }

  async #fetch(text: string): Promise<void> {
    this.#asking = new AbortController();
    const query = new URLSearchParams({ account: this.#account(), text });
    try {
      const answer = await get<{ instruments: Found[] }>(`/ui/search?${query}`, this.#asking.signal);
      if (this.#input.value.trim() === text) this.#show(answer.instruments);
    } catch {
      this.#close(); // suggestions are a convenience: the server checks the symbol when it is sent
    }
  }

  #show(found: Found[]): void {
    this.#found = found;
    this.#list.replaceChildren(...found.map((one, index) => this.#option(one, index)));
    const open = found.length > 0 && document.activeElement === this.#input;
    this.#list.hidden = !open;
    this.#input.setAttribute("aria-expanded", String(open));
    this.#mark(open ? 0 : -1);
  }

  #option(found: Found, index: number): HTMLLIElement {
    const option = make("li", "combo-option");
    option.id = `t-found-${index}`;
    option.setAttribute("role", "option");
    option.dataset["index"] = String(index);
    option.append(make("b", "", found.symbol), make("span", "combo-where", found.exchange));
    if (found.name && found.name !== found.symbol) option.append(make("span", "combo-name", found.name));
    return option;
  }

  #mark(index: number): void {
    this.#active = index;
    for (const [at, option] of [...this.#list.children].entries()) {
      option.setAttribute("aria-selected", String(at === index));
      if (at === index) option.scrollIntoView({ block: "nearest" });
    }
    if (index >= 0) this.#input.setAttribute("aria-activedescendant", `t-found-${index}`);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #onKey(event: KeyboardEvent): void {
    if (this.#list.hidden) return;
    const last = this.#found.length - 1;
    if (event.key === "ArrowDown") this.#mark(Math.min(last, this.#active + 1));
    else if (event.key === "ArrowUp") this.#mark(Math.max(0, this.#active - 1));
    else if (event.key === "Enter" || event.key === "Tab") this.#pick(this.#active);
    else if (event.key === "Escape") this.#close();
    else return;
    if (event.key !== "Tab") {
      event.preventDefault();
      event.stopPropagation();
    }
  }

  #onPointer(event: PointerEvent): void {
    event.preventDefault();
    const option = (event.target as Element).closest<HTMLElement>("[data-index]");
    if (option !== null) this.#pick(Number(option.dataset["index"]));
  }

  #pick(index: number): void {
    const found = this.#found[index];
    this.#close();
    if (found !== undefined) this.#choose(found);
  }

  #close(): void {
    clearTimeout(this.#timer);
    this.#list.hidden = true;
    this.#input.setAttribute("aria-expanded", "false");
    this.#mark(-1);
  }
}
