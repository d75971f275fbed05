/** Semaphore: counting, order, queue limit, leaving. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Semaphore } from "../../../src/base/semaphore.ts";

const never = new AbortController().signal;

describe("Semaphore", () => {
  it("gives out as many permits as it has and queues the rest", async () => {
    const semaphore = new Semaphore(2, { queueMax: 10 });
    await semaphore.acquire({ signal: never });
    const release = await semaphore.acquire({ signal: never });

    const third = semaphore.acquire({ signal: never });
    assert.equal(semaphore.waiting, 1);
    release();

    await third;
    assert.equal(semaphore.waiting, 0);
  });

  it("serves lower priority numbers first, equal ones in order of arrival", async () => {
    const semaphore = new Semaphore(1, { queueMax: 10 });
    const release = await semaphore.acquire({ signal: never });
    const served: string[] = [];
    const queue = async (name: string, priority: number): Promise<void> =>
      semaphore.run({ signal: never, priority }, async () => {
        served.push(name);
      });

    const all = [queue("fill", 2), queue("read 1", 0), queue("prefetch", 1), queue("read 2", 0)];
    release();
    await Promise.all(all);

    assert.deepEqual(served, ["read 1", "read 2", "prefetch", "fill"]);
  });

  it("refuses with resource-exhausted when the queue is full", async () => {
    const semaphore = new Semaphore(1, { queueMax: 1 });
    const release = await semaphore.acquire({ signal: never });
    const second = semaphore.acquire({ signal: never });

    await assert.rejects(semaphore.acquire({ signal: never }), { code: "resource-exhausted" });

    release();
    (await second)();
  });

  it("forgets a waiter that is aborted and passes the permit to the next", async () => {
    const semaphore = new Semaphore(1, { queueMax: 10 });
    const release = await semaphore.acquire({ signal: never });
    const controller = new AbortController();
    const leaving = semaphore.acquire({ signal: controller.signal });
    const staying = semaphore.acquire({ signal: never });

    controller.abort();
    await assert.rejects(leaving, { code: "canceled" });
    release();

    await staying;
    assert.equal(semaphore.waiting, 0);
  });

  it("counts a permit given back twice once", async () => {
    const semaphore = new Semaphore(1, { queueMax: 10 });
    const release = await semaphore.acquire({ signal: never });
    release();
    release();
    await semaphore.acquire({ signal: never });

    void semaphore.acquire({ signal: never });

    assert.equal(semaphore.waiting, 1);
  });

  it("gives the permit back when the work fails", async () => {
    const semaphore = new Semaphore(1, { queueMax: 0 });
    const failing = semaphore.run({ signal: never }, async () => {
      throw new RangeError("no");
    });

    await assert.rejects(failing, RangeError);

    assert.equal(await semaphore.run({ signal: never }, async () => 1), 1);
  });

  it("refuses an aborted caller even when a permit is free, and keeps the permit", async () => {
    const semaphore = new Semaphore(1, { queueMax: 0 });

    await assert.rejects(semaphore.acquire({ signal: AbortSignal.abort() }), { code: "canceled" });

    await semaphore.acquire({ signal: never });
  });

  it("refuses to be made without permits", () => {
    assert.throws(() => new Semaphore(0, { queueMax: 1 }), { code: "internal" });
  });

  it("never has more holders than permits, and ends with all permits free (property)", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.array(fc.record({ priority: fc.nat(2), isAborted: fc.boolean() }), { maxLength: 12 }),
        async (permits, callers) => {
          const semaphore = new Semaphore(permits, { queueMax: 100 });
          let holders = 0;
          let holdersMax = 0;

          const controller = new AbortController();
          const all = callers.map(async ({ priority, isAborted }) => {
            const signal = isAborted ? controller.signal : never;
            await semaphore.run({ signal, priority }, async () => {
              holders += 1;
              holdersMax = Math.max(holdersMax, holders);
              await Promise.resolve();
              holders -= 1;
            });
          });
          controller.abort();
          await Promise.allSettled(all);

          assert.ok(holdersMax <= permits);
          for (let index = 0; index < permits; index += 1) {
            await semaphore.acquire({ signal: never });
          }
          assert.equal(semaphore.waiting, 0);
        },
      ),
      { numRuns: 200 },
    );
  });
});
