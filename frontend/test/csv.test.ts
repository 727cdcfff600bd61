import assert from "node:assert/strict";
import { test } from "node:test";
import { csv, orderColumns } from "../src/core/csv.ts";
import type { Order } from "../src/core/wire.ts";

const columns = [
  ["name", (row: { name: string }) => row.name],
  ["price", () => 1500.05],
] as const;

test("what needs quotes has them, numbers are exact", () => {
  assert.equal(csv(columns, [{ name: 'a "b", c' }]), 'name,price\r\n"a ""b"", c",1500.05\r\n');
});

test("a broker's words never become a formula", () => {
  for (const name of ["=1+1", "+1", "-1", "@x", "\t=1"]) assert.ok(csv(columns, [{ name }]).split("\r\n")[1]?.replace('"', "").startsWith("'"));
});

test("times are India's", () => {
  const order = { first_seen: Date.UTC(2026, 10, 24, 4, 0, 5), broker_time: 0, rejection_reason: "" } as Order;

  assert.ok(csv(orderColumns, [order]).includes("2026-11-24 09:30:05,,"));
});

test("a table without rows is its head", () => {
  assert.equal(csv(columns, []), "name,price\r\n");
});
