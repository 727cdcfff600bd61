// The freshness pill of each account: a word, a sign, the age of the data, and what it means when opened.
import { pill } from "../core/feedwords.ts";
import type { FeedStatus } from "../core/wire.ts";
import { all, make, need, setAttribute, setIcon, setText } from "./dom.ts";

export class Pills {
  readonly #feeds = new Map<string, FeedStatus>();
  readonly #menus = new Map<string, HTMLDetailsElement>();
  #lostAt = 0;

  constructor(onRefresh: (account: string) => void) {
    for (const menu of all<HTMLDetailsElement>(".pill-menu")) this.#menus.set(menu.dataset["account"] ?? "", menu);
    for (const button of all<HTMLButtonElement>("[data-refresh]")) {
      button.addEventListener("click", () => onRefresh(button.dataset["refresh"] ?? ""));
    }
  }

  set(status: FeedStatus): void {
    this.#feeds.set(status.account, status);
  }

  feed(account: string): FeedStatus | undefined {
    return this.#feeds.get(account);
  }

  lost(at: number): void {
    this.#lostAt = at;
  }

  draw(now: number): void {
    for (const [account, menu] of this.#menus) this.#show(menu, this.#feeds.get(account), now);
  }

  #show(menu: HTMLDetailsElement, feed: FeedStatus | undefined, now: number): void {
    const said = pill(feed, now, this.#lostAt);
    const summary = need("summary", menu);
    setAttribute(summary, "data-tone", said.tone);
    setIcon(need("svg", summary), said.icon);
    setText(need(".pill-word", summary), said.word);
    setText(need(".pill-age", summary), said.age);
    setAttribute(summary, "title", said.meaning);
    need(".pill-login", menu).hidden = feed?.freshness !== "AUTH_REQUIRED";
    if (!menu.open) return;
    setText(need(".pill-meaning", menu), said.meaning);
    need(".pill-facts", menu).replaceChildren(...said.facts.map((fact) => make("li", "", fact)));
  }
}
