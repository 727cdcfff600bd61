import assert from "node:assert/strict";
import { test } from "node:test";
import { coalesce } from "../src/host/coalesce.ts";
import { type Feed, summary } from "../src/host/summary.ts";

const feed = (freshness: string, detail = ""): Feed => ({
  account: freshness,
  freshness,
  detail,
  since: 0,
  read_at: 0,
  connected: true,
});

test("a page is as fresh as the least fresh of its accounts", () => {
  assert.equal(summary([feed("LIVE"), feed("DEGRADED")], true).freshness, "DEGRADED");
  assert.deepEqual(summary([feed("LIVE"), feed("MANUAL", "orderwire is away")], true), {
    freshness: "MANUAL",
    words: "Not live",
    detail: "orderwire is away",
  });
});

test("a word that is not known is never called live", () => {
  assert.equal(summary([feed("LIVE"), feed("NEWWORD")], true).words, "NEWWORD");
});

test("without a connection nothing is live, whatever was last told", () => {
  assert.equal(summary([feed("LIVE")], false).freshness, "OFFLINE");
});

test("without an account nothing is said", () => {
  assert.equal(summary([], true).words, "");
});

test("many changes cause one refresh at a time and one more at the end", async () => {
  const ends: (() => void)[] = [];
  let runs = 0;
  const ask = coalesce(() => {
    runs += 1;
    return new Promise<void>((resolve) => ends.push(resolve));
  });

  for (let n = 0; n < 10; n += 1) ask();
  assert.equal(runs, 1);
  ends.shift()?.();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(runs, 2);
  ends.shift()?.();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(runs, 2);
  ask();
  assert.equal(runs, 3);
});

test("a refresh that fails does not keep the next from coming", async () => {
  let runs = 0;
  const warn = console.warn;
  console.warn = () => {};
  const ask = coalesce(() => {
    runs += 1;
    throw new Error("the host is away");
  });
  ask();
  await new Promise((resolve) => setImmediate(resolve));
  ask();
  await new Promise((resolve) => setImmediate(resolve));
  console.warn = warn;

  assert.equal(runs, 2);
});
