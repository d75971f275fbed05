/** The read path over fake sources and stores: what readers see. */
import assert from "node:assert/strict";
import { DaemonError, errorCode, errorMessage } from "../../../src/base/errors.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { FakeSource, gate } from "../../support/block/fake-source.ts";
import { openBench, watch } from "../../support/block/resolver.ts";
import { evenLayer, sampleLayer } from "../../support/block/sample-layer.ts";

const READER = { priority: 0, signal: new AbortController().signal } as const;
const FILL = { priority: 3, signal: new AbortController().signal } as const;
const KIB = 1024;

function codeIs(code: string, pattern?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.equal(errorCode(error), code, errorMessage(error));
    if (pattern !== undefined) assert.match(errorMessage(error), pattern);
    return true;
  };
}

describe("BlockResolver", () => {
  it("answers whole blocks and stores their tar bytes", async () => {
    await using bench = openBench();
    const sample = evenLayer(1, 4, 1000);
    const stored = bench.add(sample, [new FakeSource().add(sample)]);
    const result = await bench.resolver.ensure(sample.id, { start: 1500, end: 1600 }, READER);
    assert.deepEqual(result, { present: [{ start: 1000, end: 2000 }] });
    assert.deepEqual(stored.blocks.get(1), sample.tar.subarray(1000, 2000));
    const { sources } = bench.resolver.stats(sample.id);
    const counts = {
      requests: 1,
      blocks: 1,
      blobBytes: 1000,
      failures: 0,
      passes: 0,
      badBlocks: 0,
    };
    assert.deepEqual(sources, { registry: counts });
  });

  it("includes the device's padding in the last block and answers padding alone", async () => {
    await using bench = openBench();
    const sample = evenLayer(2, 3, 1000);
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]);
    const padding = await bench.resolver.ensure(sample.id, { start: 3000, end: 3072 }, READER);
    assert.deepEqual(padding, { present: [{ start: 3000, end: 3072 }] });
    assert.equal(source.requests.length, 0);
    const tail = await bench.resolver.ensure(sample.id, { start: 2990, end: 3072 }, READER);
    assert.deepEqual(tail, { present: [{ start: 2000, end: 3072 }] });
  });

  it("refuses ranges outside the device and layers it does not know", async () => {
    await using bench = openBench();
    const sample = evenLayer(3, 2, 512);
    bench.add(sample, [new FakeSource().add(sample)]);
    for (const range of [
      { start: 0, end: 1025 },
      { start: -1, end: 5 },
      { start: 5, end: 5 },
    ]) {
      await assert.rejects(bench.resolver.ensure(sample.id, range, READER), codeIs("out-of-range"));
    }
    const unknown = bench.resolver.ensure("ff", { start: 0, end: 1 }, READER);
    await assert.rejects(unknown, codeIs("not-found"));
  });

  it("asks nobody for a present block and answers it while others stall", async () => {
    await using bench = openBench();
    const sample = evenLayer(4, 40, 100);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    stored.blocks.set(7, sample.tar.subarray(700, 800));
    source.onRequest = () => gate().wait;
    const stalled = Array.from({ length: 30 }, (_, at) =>
      watch(
        bench.resolver.ensure(sample.id, { start: 1000 + at * 100, end: 1001 + at * 100 }, READER),
      ),
    );
    await settle();
    const result = await bench.resolver.ensure(sample.id, { start: 700, end: 800 }, READER);
    assert.deepEqual(result, { present: [{ start: 700, end: 800 }] });
    assert.ok(stalled.every(({ state }) => state === "waiting"));
  });

  it("verifies a doubtful block instead of fetching it", async () => {
    await using bench = openBench();
    const sample = evenLayer(5, 2, 100);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    stored.doubtful.set(0, sample.tar.subarray(0, 100));
    await bench.resolver.ensure(sample.id, { start: 0, end: 10 }, READER);
    assert.equal(source.requests.length, 0);
  });

  it("shares one request between readers of a block", async () => {
    await using bench = openBench();
    const sample = evenLayer(6, 2, 100);
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]);
    const ensure = (): Promise<unknown> =>
      bench.resolver.ensure(sample.id, { start: 0, end: 10 }, READER);
    await Promise.all([ensure(), ensure(), ensure()]);
    assert.equal(source.requests.length, 1);
  });

  it("merges neighbours into one request, over small gaps, up to a bound", async () => {
    await using bench = openBench();
    const blocks = Array.from({ length: 12 }, (_, index) => ({
      tarLength: 512 * KIB,
      gap: index === 5 ? 100 * KIB : index % 2 === 0 ? 18 : 0,
    }));
    const sample = sampleLayer(7, blocks);
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]);
    await bench.resolver.ensure(sample.id, { start: 0, end: 12 * 512 * KIB }, READER);
    assert.deepEqual(source.spans, [
      [0, 4],
      [5, 11],
    ]);
    assert.ok(source.requests.every(({ run }) => run.range.end - run.range.start <= 4 * KIB * KIB));
  });

  it("does not fetch what lies between missing blocks", async () => {
    await using bench = openBench();
    const sample = evenLayer(8, 5, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    stored.blocks.set(2, sample.tar.subarray(2000, 3000));
    await bench.resolver.ensure(sample.id, { start: 0, end: 5000 }, READER);
    assert.deepEqual(source.spans, [
      [0, 1],
      [3, 4],
    ]);
  });

  it("goes on for the readers that remain when one leaves, and stops when the last leaves", async () => {
    await using bench = openBench();
    const sample = evenLayer(9, 2, 100);
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]);
    const hold = gate();
    source.onPiece = () => hold.wait;
    const first = new AbortController();
    const second = new AbortController();
    const ensure = (signal: AbortSignal): Promise<unknown> =>
      bench.resolver.ensure(sample.id, { start: 0, end: 10 }, { priority: 0, signal });
    const one = watch(ensure(first.signal));
    const two = watch(ensure(second.signal));
    await settle();
    first.abort(new DaemonError("canceled", "gone"));
    await settle();
    assert.equal(one.state, "failed");
    assert.equal(two.state, "waiting");
    assert.equal(source.open, 1);
    second.abort();
    await settle();
    assert.equal(two.state, "failed");
    assert.equal(source.requests[0]?.signal.aborted, true);
    assert.equal(bench.resolver.counts.flights, 0);
    assert.equal(bench.resolver.counts.active, 0);
    hold.open();
    source.onPiece = () => undefined;
    await ensure(READER.signal); // a new reader starts anew
    assert.equal(source.requests.length, 2);
  });

  it("removes a queued block that nobody waits for any more", async () => {
    await using bench = openBench();
    const sample = evenLayer(10, 1, 100);
    bench.add(sample, () => []);
    const leave = new AbortController();
    const options = { priority: 0, signal: leave.signal } as const;
    const reader = watch(bench.resolver.ensure(sample.id, { start: 0, end: 10 }, options));
    await settle();
    assert.equal(bench.resolver.counts.queued, 1);
    leave.abort();
    await settle();
    assert.equal(reader.state, "failed");
    assert.equal(bench.resolver.counts.queued, 0);
  });

  it("promotes a queued fill when a reader wants the block", async () => {
    await using bench = openBench();
    const sample = sampleLayer(
      11,
      Array.from({ length: 8 }, () => ({ tarLength: 100, gap: 128 * KIB })),
    );
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]);
    const hold = gate();
    source.onRequest = () => hold.wait;
    const fill = bench.resolver.fill(sample.id, { first: 0, last: 7 }, FILL);
    await settle();
    assert.equal(source.requests.length, 1); // fill gets one request per layer
    const reader = bench.resolver.ensure(sample.id, { start: 600, end: 610 }, READER);
    await settle();
    assert.deepEqual(source.spans, [
      [0, 0],
      [6, 6],
    ]);
    assert.equal(source.requests[1]?.priority, 0);
    hold.open();
    await reader;
    assert.deepEqual(await fill, { storedBlocks: 8, passedBlocks: 0 });
    assert.equal(source.spans.filter(([first]) => first === 6).length, 1);
  });

  it("serves the bytes asked for when there is no room, and remembers them", async () => {
    await using bench = openBench();
    const sample = evenLayer(12, 4, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    stored.hasRoom = (index) => index === 1;
    const range = { start: 500, end: 3500 };
    const result = await bench.resolver.ensure(sample.id, range, READER);
    assert.ok("data" in result);
    assert.deepEqual(Buffer.from(result.data), sample.tar.subarray(500, 3500));
    const again = await bench.resolver.ensure(sample.id, { start: 0, end: 10 }, READER);
    assert.ok("data" in again);
    assert.equal(source.requests.length, 1);
    assert.equal(bench.resolver.stats().passedBlocks, 3);
  });

  it("fills the padding with zeros when it passes bytes through", async () => {
    await using bench = openBench();
    const sample = evenLayer(13, 1, 1000);
    bench.add(sample, [new FakeSource().add(sample)]).hasRoom = () => false;
    const result = await bench.resolver.ensure(sample.id, { start: 990, end: 1024 }, READER);
    assert.ok("data" in result);
    const expected = Buffer.concat([sample.tar.subarray(990), Buffer.alloc(24)]);
    assert.deepEqual(Buffer.from(result.data), expected);
  });

  it("fetches again what was evicted while its neighbours came", async () => {
    await using bench = openBench();
    const sample = evenLayer(14, 3, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    let evictions = 0;
    stored.onHold = () => {
      if (stored.blocks.size === 3 && evictions < 3) {
        evictions += 1;
        stored.blocks.delete(1);
      }
    };
    const result = await bench.resolver.ensure(sample.id, { start: 0, end: 3000 }, READER);
    assert.deepEqual(result, { present: [{ start: 0, end: 3072 }] });
    assert.equal(evictions, 3);
  });

  it("decodes kept blob bytes instead of asking a source, and drops damaged ones", async () => {
    await using bench = openBench();
    const sample = evenLayer(15, 2, 100);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    const kept = new Map([
      [0, sample.blob.subarray(0, 100)],
      [1, Buffer.alloc(100)],
    ]);
    stored.blobs = {
      has: (index) => kept.has(index),
      read: (index) => Promise.resolve(kept.get(index)),
      write: (index, bytes) => {
        kept.set(index, Buffer.from(bytes));
        return Promise.resolve();
      },
      discard: (index) => {
        kept.delete(index);
        return Promise.resolve();
      },
    };
    await bench.resolver.ensure(sample.id, { start: 0, end: 200 }, READER);
    assert.deepEqual(source.spans, [[1, 1]]);
    assert.deepEqual(stored.blocks.get(0), sample.tar.subarray(0, 100));
    assert.deepEqual(kept.get(1), sample.blob.subarray(100, 200));
  });

  it("ends readers of a removed layer with canceled and leaves others alone", async () => {
    await using bench = openBench();
    const one = evenLayer(16, 2, 100);
    const two = evenLayer(17, 2, 100);
    const source = new FakeSource().add(one, two);
    const hold = gate();
    source.onRequest = () => hold.wait;
    bench.add(one, [source]);
    bench.add(two, [source]);
    const first = bench.resolver.ensure(one.id, { start: 0, end: 1 }, READER);
    const second = bench.resolver.ensure(two.id, { start: 0, end: 1 }, READER);
    first.catch(() => undefined);
    await settle();
    bench.resolver.removeLayer(one.id);
    await assert.rejects(first, codeIs("canceled"));
    hold.open();
    await second;
    assert.equal(bench.resolver.stats().sources["registry"]?.blocks, 1);
  });

  it("leaves no work behind when it is disposed", async () => {
    const bench = openBench();
    const sample = evenLayer(18, 4, 100);
    const source = new FakeSource().add(sample);
    source.onPiece = () => gate().wait;
    bench.add(sample, [source]);
    const reader = bench.resolver.ensure(sample.id, { start: 0, end: 400 }, READER);
    reader.catch(() => undefined);
    await settle();
    await bench[Symbol.asyncDispose]();
    await assert.rejects(reader, codeIs("canceled"));
    assert.equal(bench.clock.pendingTimers, 0);
    assert.deepEqual(
      { ...bench.resolver.counts },
      { flights: 0, queued: 0, runs: 0, active: 0, parked: 0, memoryBytes: 0, relayBytes: 0 },
    );
  });
});
