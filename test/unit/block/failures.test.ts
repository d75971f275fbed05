/** What failing, lying and silent sources do to readers. */
import assert from "node:assert/strict";
import { DaemonError, errorCode, errorMessage } from "../../../src/base/errors.ts";
import { FakeClock, settle } from "../../support/block/fake-clock.ts";
import { FakeSource, gate } from "../../support/block/fake-source.ts";
import { halfRandom, openBench, watch } from "../../support/block/resolver.ts";
import { evenLayer, fakeDecodeBlock, flip } from "../../support/block/sample-layer.ts";
import { BlockResolver } from "../../../src/block/index.ts";
import { FakeStored } from "../../support/block/fake-stored.ts";
import { silentLogger } from "../../../src/base/log.ts";

const READER = { priority: 0, signal: new AbortController().signal } as const;
const FIRST = { start: 0, end: 10 };

function fails(code: string, pattern: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.equal(errorCode(error), code, errorMessage(error));
    assert.match(errorMessage(error), pattern);
    return true;
  };
}

const down = (): never => {
  throw new DaemonError("unavailable", "connection refused");
};

describe("BlockResolver with failing sources", () => {
  it("refetches a corrupt block from the other source and reports the first", async () => {
    await using bench = openBench();
    const sample = evenLayer(20, 3, 1000);
    const liar = new FakeSource("parent", "https://parent.example").add(sample);
    liar.alter = (bytes, offset) => {
      if (offset <= 1500 && offset + bytes.length > 1500) flip(bytes, 1500 - offset);
      return bytes;
    };
    const honest = new FakeSource().add(sample);
    const stored = bench.add(sample, [liar, honest]);
    const result = await bench.resolver.ensure(sample.id, { start: 0, end: 3000 }, READER);
    assert.deepEqual(result, { present: [{ start: 0, end: 3072 }] });
    assert.deepEqual(stored.blocks.get(1), sample.tar.subarray(1000, 2000));
    assert.deepEqual(liar.badBlocks, [1, 1]);
    assert.deepEqual(honest.spans, [[1, 1]]);
    assert.equal(bench.resolver.stats().sources["parent"]?.badBlocks, 2);
    assert.ok(bench.events.includes("block-corrupt"));
  });

  it("ends in data-loss naming blob and range when the only source keeps lying", async () => {
    await using bench = openBench();
    const sample = evenLayer(21, 2, 1000);
    const liar = new FakeSource().add(sample);
    liar.alter = (bytes) => Buffer.alloc(bytes.length);
    const stored = bench.add(sample, [liar]);
    await assert.rejects(
      bench.resolver.ensure(sample.id, { start: 1000, end: 1001 }, READER),
      fails("data-loss", /block 1 of blob sha256:[0-9a-f]{12}, bytes 1000-2000.*wrong sha256/),
    );
    assert.equal(liar.requests.length, 2);
    assert.equal(stored.blocks.size, 0);
    assert.ok(bench.events.includes("block-lost"));
  });

  it("never serves a block whose map says other tar bytes than it decodes to", async () => {
    const sample = evenLayer(22, 1, 100);
    const clock = new FakeClock();
    await using resolver = new BlockResolver({
      clock,
      random: halfRandom,
      logger: silentLogger,
      decodeBlock: async (block, bytes) => {
        const wrong = Buffer.from(await fakeDecodeBlock(block, bytes));
        flip(wrong, 5);
        return wrong;
      },
      decodeFrame: () => {
        throw new Error("not used");
      },
    });
    const source = new FakeSource().add(sample);
    const stored = new FakeStored(sample.table);
    resolver.addLayer(sample.layer([source]), stored);
    await assert.rejects(
      resolver.ensure(sample.id, FIRST, READER),
      fails("data-loss", /bytes 0-100.*other tar bytes/),
    );
    assert.equal(stored.blocks.size, 0);
    assert.equal(source.requests.length, 1, "no other source can help");
  });

  it("keeps the blocks that came whole before a request broke, and asks for the rest", async () => {
    await using bench = openBench();
    const sample = evenLayer(23, 4, 1000);
    const source = new FakeSource().add(sample);
    source.pieceBytes = 1000;
    let isBroken = false;
    source.onPiece = (_request, offset) => {
      if (offset === 2000 && !isBroken) {
        isBroken = true;
        down();
      }
    };
    bench.add(sample, [source]);
    const reader = bench.resolver.ensure(sample.id, { start: 0, end: 4000 }, READER);
    await bench.clock.advance(1000);
    await reader;
    assert.deepEqual(source.spans, [
      [0, 3],
      [2, 3],
    ]);
  });

  it("takes a stream that ends early for a failure, not for a lie", async () => {
    await using bench = openBench();
    const sample = evenLayer(24, 1, 1000);
    const source = new FakeSource().add({ id: sample.id, blob: sample.blob.subarray(0, 500) });
    bench.add(sample, [source]);
    const reader = bench.resolver.ensure(sample.id, FIRST, READER);
    await settle();
    source.add(sample);
    await bench.clock.advance(1000);
    await reader;
    assert.deepEqual(source.badBlocks, []);
  });

  it("waits with growing pauses while the source is down, then fails within the limit", async () => {
    await using bench = openBench({ readLimitMs: 60_000 });
    const sample = evenLayer(25, 1, 1000);
    const source = new FakeSource().add(sample);
    const times: number[] = [];
    source.onRequest = () => {
      times.push(bench.clock.nowMs());
      down();
    };
    bench.add(sample, [source]);
    const reader = watch(bench.resolver.ensure(sample.id, FIRST, READER));
    await bench.clock.advance(59_999);
    assert.equal(reader.state, "waiting");
    await bench.clock.advance(2);
    assert.equal(reader.state, "failed");
    assert.ok(fails("unavailable", /not read within 60000 ms.*connection refused/)(reader.error));
    const pauses = times.slice(1).map((time, index) => time - (times[index] ?? 0));
    assert.deepEqual(pauses.slice(0, 4), [75, 150, 300, 600]);
    assert.ok(pauses.every((pause) => pause <= 5000));
    assert.ok(times.length < 30, `${times.length} requests`);
    assert.equal(bench.resolver.counts.flights, 0);
  });

  it("recovers while readers wait", async () => {
    await using bench = openBench();
    const sample = evenLayer(26, 2, 1000);
    const source = new FakeSource().add(sample);
    source.onRequest = down;
    bench.add(sample, [source]);
    const reader = bench.resolver.ensure(sample.id, FIRST, READER);
    await bench.clock.advance(10_000);
    source.onRequest = () => undefined;
    await bench.clock.advance(5000);
    await reader;
    assert.ok(bench.events.includes("source-recovered"));
    const before = source.requests.length;
    await bench.resolver.ensure(sample.id, { start: 1000, end: 1001 }, READER);
    assert.equal(source.requests.length, before + 1);
  });

  it("does not sit out a backoff when it is woken", async () => {
    await using bench = openBench();
    const sample = evenLayer(35, 1, 1000);
    const source = new FakeSource().add(sample);
    source.onRequest = down;
    bench.add(sample, [source]);
    const reader = watch(bench.resolver.ensure(sample.id, FIRST, READER));
    await bench.clock.advance(10_000);
    source.onRequest = () => undefined;
    bench.resolver.wake();
    await settle();
    assert.equal(reader.state, "done");
  });

  it("asks the next source at once when the first refuses the blob, without asking it again", async () => {
    await using bench = openBench();
    const sample = evenLayer(27, 3, 1000);
    const missing = new FakeSource("mirror", "https://mirror.example");
    missing.onRequest = () => {
      throw new DaemonError("not-found", "404");
    };
    const source = new FakeSource().add(sample);
    bench.add(sample, [missing, source]);
    await bench.resolver.ensure(sample.id, FIRST, READER);
    await bench.resolver.ensure(sample.id, { start: 2000, end: 2001 }, READER);
    assert.equal(missing.requests.length, 1);
    assert.equal(source.requests.length, 2);
  });

  it("fails with the source's own code when every source refuses", async () => {
    await using bench = openBench();
    const sample = evenLayer(28, 1, 1000);
    const source = new FakeSource();
    source.onRequest = () => {
      throw new DaemonError("permission-denied", "403 from registry");
    };
    bench.add(sample, [source]);
    const ensure = (): Promise<unknown> => bench.resolver.ensure(sample.id, FIRST, READER);
    await assert.rejects(ensure(), fails("permission-denied", /403 from registry/));
    await assert.rejects(ensure(), fails("permission-denied", /403 from registry/));
    assert.equal(source.requests.length, 1, "the refusal answers for a while");
    await bench.clock.advance(3000);
    await assert.rejects(ensure(), fails("permission-denied", /403/));
    assert.equal(source.requests.length, 2);
  });

  it("tries the other source while the first is backing off", async () => {
    await using bench = openBench();
    const sample = evenLayer(29, 2, 1000);
    const first = new FakeSource("mirror", "https://mirror.example").add(sample);
    first.onRequest = down;
    const second = new FakeSource().add(sample);
    bench.add(sample, [first, second]);
    await bench.resolver.ensure(sample.id, FIRST, READER);
    assert.equal(second.requests.length, 1);
  });

  it("gives up a silent request and asks the other source", async () => {
    await using bench = openBench();
    const sample = evenLayer(30, 2, 1000);
    const silent = new FakeSource("mirror", "https://mirror.example").add(sample);
    silent.onPiece = () => gate().wait;
    const second = new FakeSource().add(sample);
    bench.add(sample, [silent, second]);
    const reader = watch(bench.resolver.ensure(sample.id, FIRST, READER));
    await bench.clock.advance(600);
    assert.equal(reader.state, "waiting");
    // New readers of the layer prefer the source that is not silent.
    await bench.resolver.ensure(sample.id, { start: 1000, end: 1001 }, READER);
    assert.equal(second.requests.length, 1);
    await bench.clock.advance(2500);
    assert.equal(reader.state, "done");
    assert.equal(silent.open, 0);
  });

  it("gives up a source that ignores its signal", async () => {
    await using bench = openBench();
    const sample = evenLayer(31, 1, 1000);
    const honest = new FakeSource().add(sample);
    const stuck = {
      name: "stuck",
      origin: "https://stuck.example",
      fetch: () => new Promise<never>(() => undefined),
    };
    bench.add(sample, [stuck, honest]);
    const reader = watch(bench.resolver.ensure(sample.id, FIRST, READER));
    await bench.clock.advance(3500);
    assert.equal(reader.state, "done");
  });

  it("waits for a source to appear", async () => {
    await using bench = openBench();
    const sample = evenLayer(32, 1, 1000);
    const source = new FakeSource().add(sample);
    const sources: FakeSource[] = [];
    bench.add(sample, () => sources);
    const reader = watch(bench.resolver.ensure(sample.id, FIRST, READER));
    await bench.clock.advance(2000);
    assert.equal(reader.state, "waiting");
    sources.push(source);
    await bench.clock.advance(600);
    assert.equal(reader.state, "done");
  });

  it("does not hurry the backoff when many readers fail together", async () => {
    await using bench = openBench();
    const sample = evenLayer(33, 40, 200);
    const source = new FakeSource().add(sample);
    source.onRequest = down;
    bench.add(sample, [source]);
    const readers = Array.from({ length: 20 }, (_, at) => {
      const start = at * 400;
      return watch(bench.resolver.ensure(sample.id, { start, end: start + 1 }, READER));
    });
    await bench.clock.advance(59_000);
    assert.ok(source.requests.length < 30 * 4, `${source.requests.length} requests`);
    source.onRequest = () => undefined;
    await bench.clock.advance(900);
    await bench.clock.advance(5000);
    assert.ok(readers.every(({ state }) => state !== "waiting"));
  });

  it("says what is wrong when a fill has no limit and waits for ever", async () => {
    await using bench = openBench();
    const sample = evenLayer(34, 1, 1000);
    const source = new FakeSource().add(sample);
    source.onRequest = down;
    bench.add(sample, [source]);
    const leave = new AbortController();
    const options = { priority: 3, signal: leave.signal } as const;
    const fill = watch(bench.resolver.fill(sample.id, { first: 0, last: 0 }, options));
    await bench.clock.advance(600_000);
    assert.equal(fill.state, "waiting");
    assert.ok(bench.events.includes("source-failed"));
    leave.abort();
    await settle();
    assert.equal(fill.state, "failed");
    const limited = { ...READER, priority: 3, limitMs: 1000 } as const;
    const bounded = watch(bench.resolver.fill(sample.id, { first: 0, last: 0 }, limited));
    await bench.clock.advance(1100);
    assert.ok(fails("unavailable", /within 1000 ms/)(bounded.error));
  });
});
