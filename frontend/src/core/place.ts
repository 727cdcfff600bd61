// What the order page shows, as its address says it: a reload and a shared link show the same.
import { type Filter, NO_FILTER } from "./orders.ts";
import type { StateFilter } from "./words.ts";

export type Book = "orders" | "trades" | "positions";

export const BOOKS: readonly Book[] = ["orders", "trades", "positions"];
export const STATES: readonly StateFilter[] = ["all", "working", "filled", "rejected", "cancelled"];

export interface Place {
  book: Book;
  filter: Filter;
}

const LONGEST = 80;

/** Read an address's query; what it cannot mean here (a foreign account, a word nobody knows) is as if it were not there. */
export function readPlace(query: string, accounts: ReadonlySet<string>): Place {
  const given = new URLSearchParams(query);
  const [account, state, book] = ["account", "state", "book"].map((name) => given.get(name) ?? "");
  return {
    book: BOOKS.find((known) => known === book) ?? "orders",
    filter: {
      account: account !== undefined && accounts.has(account) ? account : NO_FILTER.account,
      state: STATES.find((known) => known === state) ?? NO_FILTER.state,
      text: (given.get("q") ?? "").slice(0, LONGEST),
    },
  };
}

/** Return the query of a place, without what goes without saying; "" for the page as it opens by itself. */
export function placeQuery({ book, filter }: Place): string {
  const said = new URLSearchParams();
  if (book !== "orders") said.set("book", book);
  if (filter.account !== NO_FILTER.account) said.set("account", filter.account);
  if (filter.state !== NO_FILTER.state) said.set("state", filter.state);
  if (filter.text.trim() !== "") said.set("q", filter.text);
  const query = said.toString();
  return query === "" ? "" : `?${query}`;
}
