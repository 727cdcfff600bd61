import assert from "node:assert/strict";
import { test } from "node:test";
import { byOrder, keepOrder, NO_FILTER, Tally } from "../src/core/orders.ts";
import { keyOf, Table } from "../src/core/table.ts";
import type { Order, Status } from "../src/core/wire.ts";

function order(number: number, facts: Partial<Order> = {}): Order {
  return {
    account: "a",
    row: `r${number}`,
    broker: "wired",
    orderid: String(number),
    submission: "",
    symbol: "INFY",
    exchange: "NSE",
    action: "BUY",
    quantity: 10,
    filled_quantity: 0,
    pending_quantity: 10,
    price: 100,
    trigger_price: 0,
    average_price: 0,
    disclosed_quantity: 0,
    pricetype: "LIMIT",
    product: "MIS",
    validity: "DAY",
    order_status: "open",
    status: "OPEN",
    raw_status: "OPEN",
    pending_modify: false,
    pending_cancel: false,
    conflict: false,
    checking: false,
    rejection_reason: "",
    timestamp: "",
    broker_time: number,
    first_seen: number,
    source: "stream",
    ...facts,
  };
}

const NEWEST = { column: "time", descending: true };
const rows = (table: Table<Order>): string[] => table.shown.map((one) => one.row);

/** A generator of numbers that is the same in every run. */
function chance(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return state % below;
  };
}

test("the newest order is first", () => {
  const table = new Table<Order>(byOrder(NEWEST));
  for (const number of [2, 3, 1]) table.put(order(number));

  assert.deepEqual(rows(table), ["r3", "r2", "r1"]);
});

test("a change replaces its row and tells what was there", () => {
  const table = new Table<Order>(byOrder(NEWEST));
  table.put(order(1));

  const before = table.put(order(1, { status: "FILLED" }));

  assert.equal(before?.status, "OPEN");
  assert.equal(table.size, 1);
  assert.equal(table.shown[0]?.status, "FILLED");
});

test("an order found to be ours takes the place of its line by order id", () => {
  const table = new Table<Order>(byOrder(NEWEST));
  table.put(order(1, { row: "1" }));
  table.put(order(1, { row: "OWTAG", submission: "OWTAG" }));

  assert.deepEqual(
    table.shown.map((each) => each.row),
    ["OWTAG"],
  );
  assert.equal(table.size, 1);
});

test("a row of one account never replaces a row of another", () => {
  const table = new Table<Order>(byOrder(NEWEST));
  table.put(order(1));
  table.put(order(1, { account: "b" }));

  assert.equal(table.size, 2);
});

test("a change can take a row out of the filter and back", () => {
  const table = new Table<Order>(byOrder(NEWEST));
  table.arrange(keepOrder({ ...NO_FILTER, state: "working" }), byOrder(NEWEST));
  table.put(order(1));

  table.put(order(1, { status: "FILLED" }));
  assert.deepEqual(rows(table), []);
  table.put(order(1, { status: "PARTIALLY_FILLED" }));
  assert.deepEqual(rows(table), ["r1"]);
});

test("a snapshot replaces the rows of its account alone", () => {
  const table = new Table<Order>(byOrder(NEWEST));
  table.put(order(1));
  table.put(order(2, { account: "b" }));

  table.replace("a", [order(3)]);

  assert.deepEqual(rows(table), ["r3", "r2"]);
});

test("words are found in any order, in symbol, number, state and reason", () => {
  const keep = (text: string) => keepOrder({ ...NO_FILTER, text })(order(7, { rejection_reason: "No funds", status: "REJECTED" }));

  for (const text of ["infy", "INFY buy", "rejected 7", "funds", "  "]) assert.equal(keep(text), true, text);
  assert.equal(keep("infy sell"), false);
});

test("after any changes the shown rows are those of a table built anew", () => {
  const next = chance(7);
  const states: Status[] = ["OPEN", "FILLED", "CANCELLED", "PARTIALLY_FILLED"];
  for (const column of ["time", "symbol", "status", "quantity", "price"]) {
    const sort = { column, descending: next(2) === 0 };
    const filter = { ...NO_FILTER, state: (["all", "working", "filled"] as const)[next(3)] ?? "all" };
    const table = new Table<Order>(byOrder(sort));
    table.arrange(keepOrder(filter), byOrder(sort));
    const all = new Map<string, Order>();
    for (let step = 0; step < 2000; step += 1) {
      const row = order(next(60), {
        status: states[next(4)] ?? "OPEN",
        symbol: `S${next(5)}`,
        filled_quantity: next(11),
        price: next(4),
        first_seen: next(50),
      });
      all.set(keyOf(row), row);
      table.put(row);
    }
    const anew = new Table<Order>(byOrder(sort));
    anew.replace("a", [...all.values()]);
    anew.arrange(keepOrder(filter), byOrder(sort));
    assert.deepEqual(rows(table), rows(anew), column);
    for (const row of table.shown) assert.equal(table.shown[table.indexOf(keyOf(row))], row);
  }
});

test("a thousand changes of ten thousand rows take a few milliseconds each frame", () => {
  const table = new Table<Order>(byOrder(NEWEST));
  table.replace("a", Array.from({ length: 10_000 }, (_, number) => order(number)));
  let compared = 0;
  const compare = byOrder(NEWEST);
  table.arrange(keepOrder(NO_FILTER), (a, b) => {
    compared += 1;
    return compare(a, b);
  });
  compared = 0;

  for (let step = 0; step < 1000; step += 1) table.put(order(step, { filled_quantity: 1 }));

  assert.ok(compared < 1000 * 40, `${compared} comparisons`);
});

test("the counts of the state filter follow each change", () => {
  const tally = new Tally();
  tally.recount([order(1), order(2, { status: "FILLED" })]);

  tally.move(order(1), order(1, { status: "REJECTED" }));
  tally.move(undefined, order(3));

  assert.deepEqual(
    (["all", "working", "filled", "rejected"] as const).map((state) => tally.of(state)),
    [3, 1, 1, 1],
  );
});
