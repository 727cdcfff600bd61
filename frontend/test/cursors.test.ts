import assert from "node:assert/strict";
import { test } from "node:test";
import { Cursors } from "../src/core/cursors.ts";

const place = (sequence: number, previous: number, epoch = "e1") => ({ account: "a", epoch, sequence, previous });

test("a delivery of an account without a snapshot is a gap", () => {
  assert.equal(new Cursors().take(place(1, 0)), "gap");
});

test("each delivery follows on from the one before", () => {
  const cursors = new Cursors();
  cursors.reset("a", { epoch: "e1", sequence: 4 });

  assert.equal(cursors.take(place(5, 4)), "apply");
  assert.equal(cursors.take(place(9, 5)), "apply"); // conflated on the way: `previous` says that nothing is missing
  assert.deepEqual(cursors.all(), { a: { epoch: "e1", sequence: 9 } });
});

test("what is known already is not applied again", () => {
  const cursors = new Cursors();
  cursors.reset("a", { epoch: "e1", sequence: 4 });

  assert.equal(cursors.take(place(4, 3)), "known");
  assert.equal(cursors.take(place(2, 1)), "known");
});

test("a missing delivery and another epoch are gaps, and leave the cursor where it is", () => {
  const cursors = new Cursors();
  cursors.reset("a", { epoch: "e1", sequence: 4 });

  assert.equal(cursors.take(place(6, 5)), "gap");
  assert.equal(cursors.take(place(5, 4, "e2")), "gap");
  assert.deepEqual(cursors.all(), { a: { epoch: "e1", sequence: 4 } });
});
