import assert from "node:assert/strict";
import { test } from "node:test";
import { NO_FILTER } from "../src/core/orders.ts";
import { type Place, placeQuery, readPlace } from "../src/core/place.ts";

const MINE = new Set(["zerodha-asha", "a&b=c"]);

test("the page as it opens by itself has no query", () => {
  assert.equal(placeQuery({ book: "orders", filter: NO_FILTER }), "");
  assert.deepEqual(readPlace("", MINE), { book: "orders", filter: NO_FILTER });
});

test("what is shown comes back from its address", () => {
  const places: Place[] = [
    { book: "trades", filter: { account: "a&b=c", state: "working", text: "infy +10% ?x=1" } },
    { book: "orders", filter: { ...NO_FILTER, state: "rejected" } },
    { book: "positions", filter: { ...NO_FILTER, text: "NIFTY" } },
  ];
  for (const place of places) assert.deepEqual(readPlace(placeQuery(place), MINE), place);
});

test("what an address cannot mean here is left out", () => {
  const read = readPlace("?account=ravi&state=lost&book=holdings&x=1", MINE);
  assert.deepEqual(read, { book: "orders", filter: NO_FILTER });
  assert.equal(readPlace(`?q=${"x".repeat(500)}`, MINE).filter.text.length, 80);
});
