/** The system's clock and randomness. */
import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { systemClock } from "../../../src/base/clock.ts";
import { systemRandom } from "../../../src/base/random.ts";

describe("systemClock", () => {
  it("reads wall time in nanoseconds within the millisecond that Date shows", () => {
    for (let round = 0; round < 1000; round += 1) {
      const before = BigInt(Date.now()) * 1_000_000n;
      const read = systemClock.wallNs();
      const after = BigInt(Date.now() + 1) * 1_000_000n;

      assert.ok(before <= read && read < after, `${before} ${read} ${after}`);
    }
  });

  it("reads wall time finer than a millisecond and not backwards", () => {
    const reads = Array.from({ length: 2000 }, () => systemClock.wallNs());

    assert.ok(reads.some((read) => read % 1_000_000n !== 0n));
    assert.ok(new Set(reads).size > 100);
    for (const [index, read] of reads.entries()) assert.ok(read >= (reads[index - 1] ?? 0n));
  });

  it("sleeps at least about as long as asked and leaves no listener", async () => {
    const { signal } = new AbortController();
    const start = systemClock.nowMs();

    await systemClock.sleep(15, { signal });

    assert.ok(systemClock.nowMs() - start >= 14);
    assert.equal(getEventListeners(signal, "abort").length, 0);
  });

  it("ends a sleep at once when aborted", async () => {
    const controller = new AbortController();
    const sleeping = systemClock.sleep(60_000, { signal: controller.signal });

    controller.abort();

    await assert.rejects(sleeping, { code: "canceled" });
    await assert.rejects(systemClock.sleep(60_000, { signal: controller.signal }));
  });

  it("does not fire a delay over 2^31 ms at once", async () => {
    let isFired = false;
    const cancel = systemClock.timer(2 ** 40, () => {
      isFired = true;
    });

    await systemClock.sleep(10, new AbortController());
    cancel();

    assert.equal(isFired, false);
  });

  it("calls a timer back once, unless it is cancelled", async () => {
    const fired: string[] = [];
    systemClock.timer(1, () => fired.push("kept"));
    systemClock.timer(1, () => fired.push("cancelled"))();

    await systemClock.sleep(20, new AbortController());

    assert.deepEqual(fired, ["kept"]);
  });
});

describe("systemRandom", () => {
  it("gives numbers in [0, 1) and as many bytes as asked for", () => {
    for (let round = 0; round < 100; round += 1) {
      const next = systemRandom.next();
      assert.ok(next >= 0 && next < 1);
    }
    assert.equal(systemRandom.bytes(12).length, 12);
    assert.notDeepEqual(systemRandom.bytes(16), systemRandom.bytes(16));
  });
});
