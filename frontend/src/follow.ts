// The page script for a host's own pages, served by the mounted part as /orderwire/follow.js.
//
// <table id="orders" data-orderwire-refresh>: fetched again from the page's own address when an order changes
// (data-orderwire-refresh="/elsewhere": from there). <span data-orderwire-freshness>: says how fresh the page is.
// <p data-orderwire-detail>: says why, where there is something to say; a finger finds no tooltip.
// For the page's own script: window events `orderwire:order`, `orderwire:change` and `orderwire:freshness`.
import { coalesce } from "./host/coalesce.ts";
import { Following } from "./host/follow.ts";
import type { Summary } from "./host/summary.ts";

async function refresh(part: HTMLElement): Promise<void> {
  const source = part.dataset["orderwireRefresh"] || location.href;
  const reply = await fetch(source, { headers: { Accept: "text/html" } });
  if (!reply.ok || reply.redirected) return; // logged out: the page stays as it was
  const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById(part.id);
  if (fresh !== null) part.replaceChildren(...fresh.childNodes);
}

function show({ freshness, words, detail }: Summary): void {
  for (const place of document.querySelectorAll<HTMLElement>("[data-orderwire-freshness]")) {
    place.textContent = words;
    place.title = detail;
    place.dataset["freshness"] = freshness;
    place.setAttribute("role", "status");
  }
  for (const place of document.querySelectorAll<HTMLElement>("[data-orderwire-detail]")) {
    place.textContent = detail;
    place.hidden = detail === "";
  }
}

function tell(name: string, detail?: unknown): void {
  window.dispatchEvent(new CustomEvent(`orderwire:${name}`, { detail }));
}

const parts = [...document.querySelectorAll<HTMLElement>("[data-orderwire-refresh][id]")];
const refreshAll = coalesce(() => Promise.all(parts.map(refresh)));

new Following().add({
  onChange: () => {
    if (parts.length > 0) refreshAll();
    tell("change");
  },
  onOrder: (order) => tell("order", order),
  onFreshness: (summary) => {
    show(summary);
    tell("freshness", summary);
  },
});
