/** zstd-sequential frames: one pass per frame serves and stores all its blocks. */
import assert from "node:assert/strict";
import { DaemonError, errorCode } from "../../../src/base/errors.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { FakeSource, gate } from "../../support/block/fake-source.ts";
import { openBench, watch } from "../../support/block/resolver.ts";
import { flip, sampleLayer } from "../../support/block/sample-layer.ts";
import type { SampleLayer } from "../../support/block/sample-layer.ts";

const READER = { priority: 0, signal: new AbortController().signal } as const;

/** One block of its own, a frame of six, one block of its own. */
function framed(seed: number): SampleLayer {
  const inFrame = { tarLength: 1000, codec: "zstd-sequential", frame: 1 } as const;
  return sampleLayer(seed, [
    { tarLength: 500 },
    ...Array.from({ length: 6 }, () => inFrame),
    { tarLength: 500 },
  ]);
}

const BLOCK_3 = { start: 2500, end: 2600 };
const BLOCK_5 = { start: 4500, end: 4600 };

describe("BlockResolver with zstd-sequential frames", () => {
  it("fetches the frame once and stores every block of it", async () => {
    await using bench = openBench();
    const sample = framed(60);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    const result = await bench.resolver.ensure(sample.id, BLOCK_3, READER);
    assert.deepEqual(result, { present: [{ start: 2500, end: 3500 }] });
    await settle();
    assert.deepEqual([...stored.blocks.keys()], [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(stored.blocks.get(6), sample.tar.subarray(5500, 6500));
    assert.deepEqual(source.spans, [[1, 6]]);
    assert.deepEqual(source.requests[0]?.run.range, { start: 500, end: 6500 });
  });

  it("lets a reader join a pass that has not come to its block", async () => {
    await using bench = openBench();
    const sample = framed(61);
    const source = new FakeSource().add(sample);
    source.pieceBytes = 500;
    const hold = gate();
    source.onPiece = (_request, offset) => (offset >= 3500 ? hold.wait : undefined);
    bench.add(sample, [source]);
    await bench.resolver.ensure(sample.id, BLOCK_3, READER);
    const later = watch(bench.resolver.ensure(sample.id, BLOCK_5, READER));
    await settle();
    assert.equal(later.state, "waiting");
    hold.open();
    await settle();
    assert.equal(later.state, "done");
    assert.equal(source.requests.length, 1);
  });

  it("ends with its last reader when the store has no room, and passes again for a new one", async () => {
    await using bench = openBench({ memoryBytesMax: 0 });
    const sample = framed(62);
    const source = new FakeSource().add(sample);
    source.pieceBytes = 500;
    const stored = bench.add(sample, [source]);
    stored.hasRoom = () => false;
    const result = await bench.resolver.ensure(sample.id, BLOCK_3, READER);
    assert.ok("data" in result);
    assert.deepEqual(Buffer.from(result.data), sample.tar.subarray(2500, 2600));
    await settle();
    assert.equal(source.open, 0);
    const again = await bench.resolver.ensure(sample.id, { start: 600, end: 610 }, READER);
    assert.ok("data" in again);
    assert.equal(source.requests.length, 2);
  });

  it("goes on alone below every reader once its readers are served", async () => {
    await using bench = openBench();
    const sample = framed(63);
    const source = new FakeSource().add(sample);
    source.pieceBytes = 500;
    const hold = gate();
    source.onPiece = (_request, offset) => (offset >= 4500 ? hold.wait : undefined);
    const stored = bench.add(sample, [source]);
    await bench.resolver.ensure(sample.id, BLOCK_3, READER);
    await bench.clock.advance(1000);
    assert.equal(source.open, 1);
    hold.open();
    await settle();
    assert.equal(stored.blocks.size, 6);
  });

  it("aborts the pass when its only reader leaves before the first block", async () => {
    await using bench = openBench();
    const sample = framed(64);
    const source = new FakeSource().add(sample);
    source.onPiece = () => gate().wait;
    bench.add(sample, [source]);
    const leave = new AbortController();
    const options = { priority: 0, signal: leave.signal } as const;
    const reader = watch(bench.resolver.ensure(sample.id, BLOCK_3, options));
    await settle();
    leave.abort();
    await settle();
    assert.equal(reader.state, "failed");
    assert.equal(source.requests[0]?.signal.aborted, true);
    assert.equal(bench.resolver.counts.runs, 0);
  });

  it("starts the pass again after a broken connection, keeping what was stored", async () => {
    await using bench = openBench();
    const sample = framed(65);
    const source = new FakeSource().add(sample);
    source.pieceBytes = 500;
    let isBroken = false;
    source.onPiece = (_request, offset) => {
      if (offset < 2500 || isBroken) return;
      isBroken = true;
      throw new DaemonError("unavailable", "reset");
    };
    const stored = bench.add(sample, [source]);
    const reader = bench.resolver.ensure(sample.id, BLOCK_5, READER);
    await bench.clock.advance(1000);
    await reader;
    assert.deepEqual(stored.writes, [1, 2, 3, 4, 5, 6]);
    assert.equal(source.requests.length, 2);
  });

  it("never stores wrong bytes and fails with data-loss when they repeat", async () => {
    await using bench = openBench();
    const sample = framed(66);
    const source = new FakeSource().add(sample);
    source.alter = (bytes, offset) => {
      const at = 2700 - offset;
      if (at >= 0 && at < bytes.length) flip(bytes, at);
      return bytes;
    };
    const stored = bench.add(sample, [source]);
    await assert.rejects(bench.resolver.ensure(sample.id, BLOCK_5, READER), (error) => {
      assert.equal(errorCode(error), "data-loss");
      return true;
    });
    assert.deepEqual([...stored.blocks.keys()], [1, 2]);
    assert.equal(source.requests.length, 2);
  });

  it("does not merge a frame with its neighbours", async () => {
    await using bench = openBench();
    const sample = framed(67);
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]);
    await bench.resolver.ensure(sample.id, { start: 0, end: 7000 }, READER);
    assert.deepEqual(source.spans.sort(), [
      [0, 0],
      [1, 6],
      [7, 7],
    ]);
  });
});
