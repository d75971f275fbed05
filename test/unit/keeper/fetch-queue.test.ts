/** Waiting reads: sent again, retried, limited, and never told of what was dropped. */
import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { FetchQueue, FETCHES_IN_FLIGHT_MAX } from "../../../src/keeper/fetch-queue.ts";
import type { FetchLink } from "../../../src/keeper/fetch-queue.ts";
import { FakeClock, settle } from "../../support/block/fake-clock.ts";

const LAYER = "a".repeat(64);
const RANGE = { start: 4096, end: 8192 };

interface Call {
  readonly request: unknown;
  readonly signal: AbortSignal;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

class FakeLink implements FetchLink {
  isClosed = false;
  readonly calls: Call[] = [];

  async call(
    method: string,
    request: object,
    options: { readonly signal: AbortSignal },
  ): Promise<unknown> {
    assert.equal(method, "Fetcher.Fetch");
    return new Promise((resolve, reject) => {
      this.calls.push({ request, signal: options.signal, resolve, reject });
    });
  }

  get last(): Call {
    const call = this.calls.at(-1);
    assert.ok(call !== undefined, "nothing was sent");
    return call;
  }
}

const NOTHING = new Uint8Array(0);

describe("FetchQueue", () => {
  let clock: FakeClock;
  let queue: FetchQueue;
  let link: FakeLink;

  beforeEach(() => {
    clock = new FakeClock();
    queue = new FetchQueue({ clock, log: silentLogger });
    link = new FakeLink();
  });

  it("waits for an image service and sends it what waits", async () => {
    const answer = queue.fetch(LAYER, RANGE, 1000);
    assert.equal(queue.size, 1);
    queue.attach(link);
    assert.deepEqual(link.last.request, { layer: LAYER, ...RANGE });
    link.last.resolve({ present: [RANGE], data: NOTHING });
    assert.deepEqual(await answer, { present: [RANGE], data: NOTHING });
    assert.equal(queue.size, 0);
    assert.equal(clock.pendingTimers, 0);
  });

  it("sends everything again to the next image service", async () => {
    queue.attach(link);
    const answer = queue.fetch(LAYER, RANGE, 1000);
    link.isClosed = true;
    link.last.reject(new DaemonError("unavailable", "connection lost"));
    queue.detach(link);
    await settle();
    assert.equal(queue.size, 1);
    const next = new FakeLink();
    queue.attach(next);
    next.last.resolve({ present: [RANGE], data: NOTHING });
    await answer;
  });

  it("believes only the newest image service", async () => {
    queue.attach(link);
    const answer = queue.fetch(LAYER, RANGE, 1000);
    const next = new FakeLink();
    queue.attach(next);
    assert.ok(link.last.signal.aborted);
    link.last.resolve({ present: [{ start: 0, end: 1 << 20 }], data: NOTHING });
    await settle();
    assert.equal(queue.size, 1);
    queue.detach(link); // late: it is not the current one
    assert.equal(queue.link, next);
    next.last.resolve({ present: [RANGE], data: NOTHING });
    assert.deepEqual((await answer).present, [RANGE]);
  });

  it("asks again, more and more slowly, when the answer is that it cannot now", async () => {
    queue.attach(link);
    const answer = queue.fetch(LAYER, RANGE, 60_000);
    for (const [tries, delayMs] of [50, 100, 200].entries()) {
      assert.equal(link.calls.length, tries + 1);
      link.last.reject(new DaemonError("resource-exhausted", "too many calls"));
      await clock.advance(delayMs - 1);
      assert.equal(link.calls.length, tries + 1);
      await clock.advance(1);
    }
    link.last.resolve({ present: [], data: new Uint8Array(4096) });
    assert.equal((await answer).data.length, 4096);
    assert.equal(clock.pendingTimers, 0);
  });

  it("gives up at once when the answer is final", async () => {
    queue.attach(link);
    const answer = queue.fetch(LAYER, RANGE, 60_000);
    link.last.reject(new DaemonError("data-loss", "wrong digest"));
    await assert.rejects(answer, { code: "data-loss" });
    assert.equal(clock.pendingTimers, 0);
  });

  it("ends a wait at its limit, image service or not", async () => {
    const answer = queue.fetch(LAYER, RANGE, 500);
    const rejected = assert.rejects(answer, { code: "deadline-exceeded" });
    await clock.advance(500);
    await rejected;
    assert.equal(queue.size, 0);
    queue.attach(link);
    assert.equal(link.calls.length, 0);
  });

  it("takes out of an answer what was dropped since it was asked for", async () => {
    queue.attach(link);
    const answer = queue.fetch(LAYER, RANGE, 1000);
    queue.noteDropped(LAYER, { start: 6000, end: 7000 });
    queue.noteDropped("b".repeat(64), RANGE);
    link.last.resolve({ present: [{ start: 0, end: 8192 }], data: NOTHING });
    assert.deepEqual((await answer).present, [
      { start: 0, end: 6000 },
      { start: 7000, end: 8192 },
    ]);
  });

  it("refuses bytes of another length than was asked for", async () => {
    queue.attach(link);
    const answer = queue.fetch(LAYER, RANGE, 1000);
    link.last.resolve({ present: [], data: new Uint8Array(10) });
    await assert.rejects(answer, { code: "invalid-argument" });
  });

  it("keeps below the other side's limit of calls, in order", async () => {
    queue.attach(link);
    const ends = Array.from({ length: FETCHES_IN_FLIGHT_MAX + 2 }, (_none, index) =>
      queue.fetch(LAYER, { start: index, end: index + 1 }, 1000),
    );
    assert.equal(link.calls.length, FETCHES_IN_FLIGHT_MAX);
    for (let index = 0; index < ends.length; index += 1) {
      link.calls[index]?.resolve({ present: [], data: new Uint8Array(1) });
      await ends[index];
    }
    assert.equal(queue.size, 0);
  });

  it("ends the waits of a layer that is stopped", async () => {
    const answer = queue.fetch(LAYER, RANGE, 1000);
    const other = queue.fetch("b".repeat(64), RANGE, 1000);
    queue.cancelLayer(LAYER, new DaemonError("canceled", "stopped"));
    await assert.rejects(answer, { code: "canceled" });
    assert.equal(queue.size, 1);
    queue.attach(link);
    link.last.resolve({ present: [RANGE], data: NOTHING });
    await other;
  });
});
