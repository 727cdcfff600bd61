import assert from "node:assert/strict";
import { test } from "node:test";
import { ServerClock } from "../src/core/clock.ts";
import { pill } from "../src/core/feedwords.ts";
import { age, price, quantity, signed, time } from "../src/core/format.ts";
import { Median } from "../src/core/median.ts";
import { missing, promise, value, type Draft } from "../src/core/ticket.ts";
import type { FeedStatus, Order } from "../src/core/wire.ts";
import { overlay, statusWord, whyFixed } from "../src/core/words.ts";

const DRAFT: Draft = {
  side: "BUY",
  symbol: "infy",
  exchange: "NSE",
  quantity: "10",
  pricetype: "LIMIT",
  product: "MIS",
  price: "1500.5",
  trigger_price: "",
  disclosed_quantity: "",
};

const FEED: FeedStatus = {
  account: "a",
  freshness: "LIVE",
  since: 1_000,
  detail: "",
  read_at: 10_000,
  connected: true,
  next_try: 0,
};

test("numbers are grouped as in India", () => {
  assert.equal(quantity(1234567), "12,34,567");
  assert.equal(price(1500.5), "1,500.50");
  assert.equal(price(0.0025), "0.0025");
  assert.equal(price(0), "–");
  assert.equal(signed(-12.5), "−12.50");
});

test("times are India's, ages are short", () => {
  assert.equal(time(Date.UTC(2026, 10, 24, 4, 0, 5)), "09:30:05");
  assert.deepEqual([0, 7_000, 65_000, 7_200_000].map(age), ["now", "7 s", "1 min", "2 h"]);
});

test("every state has a word and a sign of its own", () => {
  const states = ["PENDING_NEW", "TRIGGER_PENDING", "OPEN", "PARTIALLY_FILLED", "FILLED", "CANCELLED", "REJECTED", "EXPIRED", "UNKNOWN"] as const;
  const said = states.map(statusWord);

  assert.equal(new Set(said.map((one) => one.word)).size, states.length);
  assert.equal(new Set(said.map((one) => one.icon)).size, states.length);
});

test("a state this page does not know yet is shown as unknown", () => {
  assert.equal(statusWord("FROM_THE_FUTURE" as Order["status"]).word, "Unknown");
});

test("what is on its way or in doubt is said beside the state", () => {
  const order = { status: "OPEN", pending_cancel: true } as Order;

  assert.equal(overlay(order), "cancelling");
  assert.equal(overlay({ ...order, conflict: true }), "broker contradicts itself");
  assert.equal(overlay({ status: "UNKNOWN", raw_status: "ODD" } as Order), "ODD");
});

test("why an order cannot be changed is said", () => {
  assert.match(whyFixed({ status: "FILLED", orderid: "1" } as Order), /filled/);
  assert.match(whyFixed({ status: "PENDING_NEW", orderid: "" } as Order), /not confirmed/);
  assert.equal(whyFixed({ status: "OPEN", orderid: "1" } as Order), "");
});

test("the pill says how old the data is and what that means", () => {
  const said = pill(FEED, 13_000, 0);

  assert.deepEqual([said.word, said.age], ["Live", "3 s"]);
  assert.ok(said.facts.includes("Order book read 3 s ago."));
});

test("a page without a connection never says live", () => {
  const said = pill(FEED, 20_000, 15_000);

  assert.deepEqual([said.word, said.tone, said.age], ["Offline", "bad", "5 s"]);
});

test("an account nobody has heard of yet is not live", () => {
  assert.equal(pill(undefined, 0, 0).word, "Reconciling");
});

test("the button promises what it does", () => {
  assert.equal(promise(DRAFT), "Buy 10 INFY");
  assert.equal(promise({ ...DRAFT, side: "SELL", symbol: "", quantity: "" }), "Sell");
});

test("what is missing is asked for in the order of the form", () => {
  assert.equal(missing(DRAFT), "");
  assert.equal(missing({ ...DRAFT, symbol: " " }), "Choose a symbol.");
  assert.equal(missing({ ...DRAFT, price: "" }), "Enter a price.");
  assert.equal(missing({ ...DRAFT, price: "", pricetype: "MARKET" }), "");
  assert.equal(missing({ ...DRAFT, pricetype: "SL-M" }), "Enter a trigger price.");
});

test("the value of an order is told when it is known", () => {
  assert.equal(value(DRAFT), 15_005);
  assert.equal(value({ ...DRAFT, pricetype: "MARKET" }), null);
  assert.equal(value({ ...DRAFT, quantity: "ten" }), null);
});

test("the clock trusts the shortest exchange", () => {
  const clock = new ServerClock();
  clock.sample(1000, 5000, 1400);
  clock.sample(2000, 5905, 2010);
  clock.sample(3000, 9999, 3800);

  assert.equal(clock.at(0), 3900);
});

test("the middle of the last few values", () => {
  const middle = new Median(3);
  assert.equal(middle.value, null);
  for (const one of [100, 1, 2, 3]) middle.add(one);

  assert.equal(middle.value, 2);
});
