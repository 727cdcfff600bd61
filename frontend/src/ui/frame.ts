// What every page has: forms answered in place (htmx), a question before a deed, times and states in words.
import htmx from "htmx.org";
import { ago } from "../core/format.ts";
import type { FreshnessName, Status } from "../core/wire.ts";
import { freshnessWord, statusWord } from "../core/words.ts";
import { all, need, setAttribute, setIcon, setText } from "./dom.ts";
import { chime, setSound, soundOn } from "./sound.ts";
import { Toasts } from "./toasts.ts";

const DATES = new Intl.DateTimeFormat("en-GB", { timeZone: "Asia/Kolkata", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

const CLOCK = new Intl.DateTimeFormat("en-GB", { timeZone: "Asia/Kolkata", hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });

export function frame(): void {
  const toasts = new Toasts();
  swaps(toasts);
  polls();
  questions();
  copying(toasts);
  htmx.onLoad((root) => dress(root as HTMLElement));
  tick();
  setInterval(tick, 1000);
}

/** What is kept in this browser: whether an order's end is heard. */
function device(root: HTMLElement): void {
  const sound = root.querySelector<HTMLInputElement>("#sound");
  if (sound === null) return;
  sound.checked = soundOn();
  sound.addEventListener("change", () => {
    setSound(sound.checked);
    if (sound.checked) chime("good");
  });
}

/** Put into words what a template can only give as a number or a name. */
function dress(root: HTMLElement): void {
  for (const pill of all("[data-feed-word]", root)) {
    const said = freshnessWord(pill.dataset["feedWord"] as FreshnessName);
    setAttribute(pill, "data-tone", said.tone);
    setAttribute(pill, "title", said.meaning);
    setText(need(".pill-word", pill), said.word);
    setIcon(need("svg", pill), said.icon);
  }
  for (const status of all("[data-order-status]", root)) {
    const said = statusWord(status.dataset["orderStatus"] as Status);
    setAttribute(status, "data-tone", said.tone);
    setText(need(".status-word", status), said.word);
    setIcon(need("svg", status), said.icon);
  }
  for (const part of all("[data-grow]", root)) part.style.flexGrow = String(Math.max(Number(part.dataset["grow"]), 0.01));
  for (const time of all<HTMLTimeElement>("time[data-precise]", root)) setText(time, CLOCK.format(Number(time.dataset["precise"])));
  for (const time of all<HTMLTimeElement>("time[data-at]", root)) setText(time, `${DATES.format(Number(time.dataset["at"]))} IST`);
  device(root);
  tick();
}

function tick(): void {
  for (const time of all<HTMLTimeElement>("time[data-ago]")) setText(time, ago(Math.max(0, Date.now() - Number(time.dataset["ago"]))));
}

/** An answer that is not one of our pages (a proxy's, or none) is said, and what was typed stays. */
function swaps(toasts: Toasts): void {
  const away = (): void => toasts.show({ tone: "bad", title: "orderwire cannot be reached", text: "Nothing was changed. Try again.", key: "away" });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { detail } = event as CustomEvent<{ shouldSwap: boolean; xhr: XMLHttpRequest; boosted?: boolean; target: HTMLElement }>;
    if (detail.target.id !== "main" || detail.xhr.responseText.includes('<main id="main"')) return;
    detail.shouldSwap = false;
    away();
  });
  document.addEventListener("htmx:sendError", (event) => {
    if (!isPoll(event)) away();
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    const target = event.target as HTMLElement;
    if (target.id === "main") settle(target);
  });
}

type Asked = CustomEvent<{ elt: Element; xhr: XMLHttpRequest; shouldSwap?: boolean }>;

function isPoll(event: Event): boolean {
  return (event as Asked).detail.elt.getAttribute("hx-trigger")?.startsWith("every") ?? false;
}

/** Parts that ask again by themselves: when nobody answers, the page keeps what it shows and says since when. */
function polls(): void {
  let since = 0;
  const banner = need("#away");
  const lost = (): void => {
    since ||= Date.now();
    setText(need("#away-text"), `Not connected to orderwire. What you see is as of ${ago(Date.now() - since)}. Trying again …`);
    banner.hidden = false;
  };
  document.addEventListener("htmx:sendError", (event) => {
    if (isPoll(event)) lost();
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (!isPoll(event)) return;
    const { detail } = event as Asked;
    if (detail.xhr.status < 400) return;
    detail.shouldSwap = false;
    if (detail.xhr.status !== 401) lost();
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    const { status } = (event as Asked).detail.xhr;
    if (!isPoll(event) || status < 200 || status >= 400) return;
    since = 0;
    banner.hidden = true;
  });
}

/** After a form was answered the focus goes to what is wrong, else to what is said about it. */
function settle(main: HTMLElement): void {
  const wrong = main.querySelector<HTMLElement>('[aria-invalid="true"], [role="alert"], .notes');
  if (wrong === null) return;
  if (!wrong.matches("input, select, textarea")) wrong.tabIndex = -1;
  wrong.focus();
}

/** A form with `data-confirm` asks first; `data-confirm-yes` is what its button says. */
function questions(): void {
  const dialog = need<HTMLDialogElement>("#confirm");
  let asked: HTMLFormElement | null = null;
  let agreed: HTMLFormElement | null = null;
  document.addEventListener(
    "submit",
    (event) => {
      const form = event.target as HTMLFormElement;
      const question = form.dataset["confirm"];
      if (question === undefined || agreed === form) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      asked = form;
      setText(need("#confirm-text"), question);
      setText(need("#confirm-yes"), form.dataset["confirmYes"] ?? "Yes");
      dialog.returnValue = "no";
      dialog.showModal();
    },
    true,
  );
  dialog.addEventListener("close", () => {
    const form = asked;
    asked = null;
    if (form === null || dialog.returnValue !== "yes") return;
    agreed = form;
    form.requestSubmit();
    agreed = null;
  });
}

/** A button with `data-copy` puts the text of the element it names on the clipboard. */
function copying(toasts: Toasts): void {
  document.addEventListener("click", (event) => {
    const button = (event.target as Element).closest<HTMLElement>("[data-copy]");
    if (button === null) return;
    const text = need(button.dataset["copy"] ?? "").textContent ?? "";
    const told = (title: string): void => toasts.show({ tone: "info", title, key: "copy" });
    navigator.clipboard.writeText(text.trim()).then(
      () => told("Copied"),
      () => told("The browser does not allow copying; select the text instead."),
    );
  });
}
