/** A read that failed is not waited for again at once. */
import assert from "node:assert/strict";
import { systemClock } from "../../../src/base/clock.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import { FailedReads } from "../../../src/daemon/failed-reads.ts";

describe("FailedReads", () => {
  it("repeats the error for a moment, for that block alone", () => {
    let nowMs = 1000;
    const reads = new FailedReads({ ...systemClock, nowMs: () => nowMs });
    const error = new DaemonError("deadline-exceeded", "registry is away");

    reads.note("a", 1, error);

    assert.equal(reads.recent("a", 1), error);
    assert.equal(reads.recent("a", 2), undefined);
    assert.equal(reads.recent("b", 1), undefined);
    nowMs += 3001;
    assert.equal(reads.recent("a", 1), undefined);
  });
});
