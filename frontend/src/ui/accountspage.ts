// The accounts page: times told as ages, freshness in words, a question before something is removed.
import { ago } from "../core/format.ts";
import type { FreshnessName } from "../core/wire.ts";
import { freshnessWord } from "../core/words.ts";
import { all, setAttribute, setIcon, setText } from "./dom.ts";

const dates = new Intl.DateTimeFormat("en-GB", { timeZone: "Asia/Kolkata", weekday: "short", hour: "2-digit", minute: "2-digit" });

export function accountsPage(): void {
  for (const pill of all("[data-feed-word]")) {
    const said = freshnessWord(pill.dataset["feedWord"] as FreshnessName);
    setAttribute(pill, "data-tone", said.tone);
    setAttribute(pill, "title", said.meaning);
    setText(pill.querySelector(".pill-word") as Element, said.word);
    setIcon(pill.querySelector("svg") as Element, said.icon);
  }
  for (const time of all<HTMLTimeElement>("[data-at]")) setText(time, `${dates.format(Number(time.dataset["at"]))} IST`);
  const tick = (): void => {
    for (const time of all<HTMLTimeElement>("[data-ago]")) setText(time, ago(Math.max(0, Date.now() - Number(time.dataset["ago"]))));
  };
  tick();
  setInterval(tick, 1000);
  for (const form of all<HTMLFormElement>("form[data-confirm]")) {
    form.addEventListener("submit", (event) => {
      if (!confirm(form.dataset["confirm"])) event.preventDefault();
    });
  }
}
