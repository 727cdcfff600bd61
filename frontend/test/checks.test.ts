import assert from "node:assert/strict";
import { test } from "node:test";
import { Checks } from "../src/core/checks.ts";
import type { Order } from "../src/core/wire.ts";

const order = (facts: Partial<Order> = {}): Order =>
  ({ account: "a", row: "1", orderid: "1", checking: false, ...facts }) as Order;
const check = (checking: boolean) => ({ account: "a", row: "1", orderid: "1", checking });

test("an order is marked while it is being checked, whatever changes meanwhile", () => {
  const checks = new Checks();
  checks.take(check(true));

  assert.equal(checks.marked(order()).checking, true);
  assert.equal(checks.marked(order({ row: "OWTAG" })).checking, true);
  assert.equal(checks.marked(order({ account: "b" })).checking, false);

  checks.take(check(false));
  assert.equal(checks.marked(order()).checking, false);
});

test("a new connection begins without marks", () => {
  const checks = new Checks();
  checks.take(check(true));

  checks.forget();

  assert.equal(checks.marked(order()).checking, false);
});

test("a line that is in doubt by itself stays so", () => {
  assert.equal(new Checks().marked(order({ checking: true })).checking, true);
});
