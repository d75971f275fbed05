/** The kernel's repetitions of a read that failed are not waited for again. */
import assert from "node:assert/strict";
import { systemClock } from "../../../src/base/clock.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import { FailedReads } from "../../../src/daemon/failed-reads.ts";

describe("FailedReads", () => {
  const error = new DaemonError("deadline-exceeded", "registry is away");
  let nowMs: number;
  let reads: FailedReads;

  beforeEach(() => {
    nowMs = 1000;
    reads = new FailedReads({ ...systemClock, nowMs: () => nowMs });
    reads.note("a", 1, error);
  });

  it("repeats the error for that block alone", () => {
    assert.equal(reads.repeated("a", 1), error);
    assert.equal(reads.repeated("a", 2), undefined);
    assert.equal(reads.repeated("b", 1), undefined);
  });

  it("goes on while repetitions follow each other, for a second at most", () => {
    for (; nowMs < 2000; nowMs += 20) assert.equal(reads.repeated("a", 1), error);

    nowMs += 20;
    assert.equal(reads.repeated("a", 1), undefined);
  });

  it("lets a later read find out anew", () => {
    nowMs += 26;

    assert.equal(reads.repeated("a", 1), undefined);
  });
});
