/** Blobs by range from a registry that cuts, stalls, lies about ranges or flips bits. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import type { BlobOptions } from "../../../src/registry/index.ts";
import { fakeBytes } from "../../support/registry/fake-image.ts";
import { FakeRegistry } from "../../support/registry/fake-registry.ts";
import type { Fault } from "../../support/registry/fake-registry.ts";
import { collect, noAbort, testPool } from "../../support/registry/pool.ts";
import type { TestPool } from "../../support/registry/pool.ts";

const SIZE = 400_000;
const BYTES = fakeBytes(SIZE);

interface World extends AsyncDisposable {
  readonly registry: FakeRegistry;
  readonly test: TestPool;
  readonly read: (
    range?: { start: number; end: number },
    options?: Partial<BlobOptions>,
  ) => Promise<Buffer>;
  readonly open: (
    range?: { start: number; end: number },
    options?: Partial<BlobOptions>,
  ) => Promise<AsyncIterable<Uint8Array>>;
}

async function world(timeoutMs = 5000): Promise<World> {
  const registry = await FakeRegistry.start();
  const digest = registry.addBlob(BYTES);
  const test = testPool({ progressTimeoutMs: timeoutMs });
  const client = test.pool.client(registry.domain);
  await client.ping({ signal: noAbort() });
  const open: World["open"] = (range, options = {}) =>
    client.openBlob("app", digest, range, { signal: noAbort(), ...options });
  return {
    registry,
    test,
    open,
    read: async (range, options) => collect(await open(range, options)),
    async [Symbol.asyncDispose]() {
      await test[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    },
  };
}

async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 2));
}

async function code(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof DaemonError, String(error));
    return error.code;
  }
  return "no error";
}

describe("BlobStream", () => {
  it("yields exactly the range, and an empty range without asking", async () => {
    await using w = await world();

    const part = await w.read({ start: 1000, end: 250_000 });
    const asked = w.registry.log.length;
    const empty = await w.read({ start: 5, end: 5 });

    assert.ok(part.equals(BYTES.subarray(1000, 250_000)));
    assert.equal(empty.length, 0);
    assert.equal(w.registry.log.length, asked);
    assert.equal(w.registry.log.at(-1)?.range, "bytes=1000-249999");
  });

  it("uses one connection for reads one after the other", async () => {
    await using w = await world();

    const before = w.registry.connectionCount;

    for (let start = 0; start < 200_000; start += 20_000) {
      await w.read({ start, end: start + 10_000 });
    }

    assert.equal(w.registry.connectionCount, before);
  });

  const recoverable: readonly (readonly [string, Fault])[] = [
    ["is cut off", { kind: "cut", afterBytes: 70_000 }],
    ["stalls", { kind: "stall", afterBytes: 70_000 }],
    ["is cut off at once", { kind: "cut", afterBytes: 0 }],
    ["is answered with a shorter range", { kind: "short-range", bytes: 100_000 }],
    ["is answered with the whole blob", { kind: "ignore-range" }],
    ["comes without a length", { kind: "chunked" }],
  ];
  for (const [what, fault] of recoverable) {
    it(`goes on where it stopped when a body ${what}`, async () => {
      await using w = await world(fault.kind === "stall" ? 200 : 5000);
      w.registry.fail(/blobs/, fault);

      const part = await w.read({ start: 10, end: 300_000 });

      assert.ok(part.equals(BYTES.subarray(10, 300_000)));
    });

    it(`goes on where it stopped when a whole blob ${what}`, async () => {
      await using w = await world(fault.kind === "stall" ? 200 : 5000);
      w.registry.fail(/blobs/, fault);

      const all = await w.read(undefined, { size: SIZE });

      assert.ok(all.equals(BYTES));
    });
  }

  it("resumes by range from the byte it has reached", async () => {
    await using w = await world();
    w.registry.fail(/blobs/, { kind: "cut", afterBytes: 131_072 });

    await w.read({ start: 0, end: 300_000 });

    const ranges = w.registry.log.flatMap(({ range }) => range ?? []);
    assert.deepEqual(ranges, ["bytes=0-299999", "bytes=131072-299999"]);
  });

  it("reads on from a server that ignores ranges, also after a cut", async () => {
    await using w = await world();
    w.registry.fail(/blobs/, { kind: "ignore-range" }, 99);
    w.registry.fail(/blobs/, { kind: "cut", afterBytes: 200_000 });

    const part = await w.read({ start: 150_000, end: 160_000 });
    const more = await w.read({ start: 100_000, end: 390_000 });

    assert.ok(part.equals(BYTES.subarray(150_000, 160_000)));
    assert.ok(more.equals(BYTES.subarray(100_000, 390_000)));
    const warnings = w.test.lines.filter(({ event }) => event === "registry-range-ignored");
    assert.equal(warnings.length, 1);
  });

  it("gives up when resuming brings nothing", async () => {
    await using w = await world();
    w.registry.fail(/blobs/, { kind: "cut", afterBytes: 100 }, 99);

    assert.equal(await code(w.read()), "unavailable");
    assert.equal(w.registry.requests.filter((line) => line.includes("blobs")).length, 5);
  });

  it("gives up on a server that sends one byte at a time", async () => {
    await using w = await world();
    w.registry.fail(/blobs/, { kind: "short-range", bytes: 1 }, 9999);

    assert.equal(await code(w.read({ start: 0, end: 1000 })), "unavailable");
    assert.ok(w.registry.log.length < 10);
  });

  it("drops a connection that only trickles, and resumes", async () => {
    await using w = await world();
    const digest = w.registry.addBlob(BYTES);
    const pool = w.test.pool.client(w.registry.domain);
    w.registry.fail(/blobs/, { kind: "trickle", bytes: 100, everyMs: 5 });
    const stream = await pool.openBlob("app", digest, undefined, { signal: noAbort() });
    // Time flies while it trickles.
    const timer = setInterval(() => {
      if (w.registry.log.length < 4) w.test.clock.advance(1000);
    }, 1);

    const bytes = await collect(stream);
    clearInterval(timer);

    assert.ok(bytes.equals(BYTES));
    assert.match(w.registry.log.at(-1)?.range ?? "", /^bytes=[1-9]\d{2,4}-$/);
  });

  it("refuses a whole blob with a wrong bit, and not when the caller verifies", async () => {
    await using w = await world();
    w.registry.fail(/blobs/, { kind: "flip", at: 300_000 }, 2);

    assert.equal(await code(w.read()), "data-loss");
    assert.equal(await code(w.read(undefined, { verify: false })), "no error");
  });

  it("refuses a blob of another size than its descriptor says", async () => {
    await using w = await world();

    assert.equal(await code(w.read(undefined, { size: SIZE - 1 })), "data-loss");
    assert.equal(await code(w.read({ start: 0, end: 10 }, { size: SIZE + 1 })), "data-loss");
  });

  it("refuses ranges outside the blob", async () => {
    await using w = await world();

    assert.equal(await code(w.read({ start: 0, end: SIZE + 1 })), "out-of-range");
    assert.equal(await code(w.read({ start: SIZE, end: SIZE + 1 })), "out-of-range");
    assert.equal(await code(w.read({ start: 0, end: SIZE + 1 }, { size: SIZE })), "out-of-range");
    assert.equal(await code(w.read({ start: 10, end: 9 })), "out-of-range");
    assert.equal(await code(w.read({ start: -1, end: 9 })), "out-of-range");
  });

  it("refuses a misplaced range and a content encoding", async () => {
    await using w = await world();
    w.registry.fail(/blobs/, { kind: "wrong-range" });
    assert.equal(await code(w.read({ start: 5, end: 50 })), "data-loss");

    w.registry.fail(/blobs/, { kind: "headers", headers: { "content-encoding": "gzip" } });
    assert.equal(await code(w.read({ start: 5, end: 50 })), "failed-precondition");
  });

  it("gives the place in the queue back when the reader leaves early", async () => {
    await using w = await world();

    for (let round = 0; round < 40; round += 1) {
      for await (const piece of await w.open(undefined)) {
        assert.ok(piece.length > 0);
        break;
      }
    }
    const part = await w.read({ start: 0, end: 10 });

    assert.equal(part.length, 10);
  });

  it("gives the place back when nobody reads for a while, and goes on later", async () => {
    await using w = await world();
    const idle = await Promise.all(Array.from({ length: 16 }, () => w.open(undefined)));

    const waiting = w.read({ start: 0, end: 10 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    w.test.clock.advance(30_001);
    const part = await waiting;
    const all = await Promise.all(idle.map((stream) => collect(stream)));

    assert.equal(part.length, 10);
    assert.ok(all.every((bytes) => bytes.equals(BYTES)));
  });

  it("gives the place back when the signal of an unread blob fires", async () => {
    await using w = await world();
    const controller = new AbortController();
    const { signal } = controller;
    const idle = await Promise.all(Array.from({ length: 16 }, () => w.open(undefined, { signal })));

    controller.abort();
    const part = await w.read({ start: 0, end: 10 });

    assert.equal(part.length, 10);
    const [first] = idle;
    assert.ok(first !== undefined);
    assert.equal(await code(collect(first)), "canceled");
  });

  it("keeps places for readers who wait, whatever the bulk", async () => {
    await using w = await world();
    const { signal } = new AbortController();
    const bulk = Array.from({ length: 30 }, () =>
      w.open(undefined, { priority: "background", signal }),
    );
    await until(() => w.test.clock.timerCount === 12);

    const part = await w.read({ start: 0, end: 10 });

    assert.equal(part.length, 10);
    assert.equal(w.test.clock.timerCount, 12, "bulk bodies open");
    for (const stream of bulk) await collect(await stream);
  });

  it("never has more than its limit of requests open at a host", async () => {
    await using w = await world();
    w.registry.fail(/blobs/, { kind: "delay", ms: 5 }, 999);

    await Promise.all(Array.from({ length: 60 }, () => w.read({ start: 0, end: 1000 })));

    assert.ok(w.registry.openCountMax <= 16, `${w.registry.openCountMax} at once`);
  });

  it("yields the right bytes under any mixture of faults", async () => {
    await using w = await world();
    const fault = fc.oneof(
      fc.record({ kind: fc.constant("cut" as const), afterBytes: fc.nat(200_000) }),
      fc.record({
        kind: fc.constant("short-range" as const),
        bytes: fc.integer({ min: 1, max: 99_999 }),
      }),
      fc.constant({ kind: "ignore-range" as const }),
      fc.constant({ kind: "chunked" as const }),
      fc.constant({ kind: "reset" as const }),
      fc.constant({ kind: "status" as const, status: 503 }),
    );
    const range = fc.tuple(fc.nat(SIZE), fc.nat(SIZE)).map(([a, b]) => ({
      start: Math.min(a, b),
      end: Math.max(a, b),
    }));
    await fc.assert(
      fc.asyncProperty(range, fc.array(fault, { maxLength: 3 }), async (asked, faults) => {
        for (const one of faults) w.registry.fail(/blobs/, one);
        const bytes = await w.read(asked, { size: SIZE });
        assert.ok(bytes.equals(BYTES.subarray(asked.start, asked.end)));
        // What was not used up must not meet the next run.
        w.registry.clearFaults();
      }),
      { numRuns: 60, seed: 7 },
    );
  });
});
