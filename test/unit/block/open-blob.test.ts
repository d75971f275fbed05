/** Blocks for other nodes: from memory, disk, or the request that is bringing them. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { DaemonError, errorCode } from "../../../src/base/errors.ts";
import { BlockTable, BlockTableBuilder } from "../../../src/block/index.ts";
import type { OpenBlobOptions } from "../../../src/block/index.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { blockOf } from "../../support/block/block-of.ts";
import { blobOf, FakeBlobs } from "../../support/block/fake-blobs.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { FakeSource, gate } from "../../support/block/fake-source.ts";
import { FakeStored } from "../../support/block/fake-stored.ts";
import { openBench } from "../../support/block/resolver.ts";
import { evenLayer, flip, sampleBytes, sampleLayer } from "../../support/block/sample-layer.ts";
import { TapReader } from "../../support/block/tap-reader.ts";

const MIB = 1024 * 1024;
const READER = { priority: 0, signal: new AbortController().signal } as const;
const FETCH: OpenBlobOptions = { ...READER, mayFetch: true };
const ASK: OpenBlobOptions = { ...READER, mayFetch: false };

describe("BlockResolver.openBlob", () => {
  it("gives kept blob bytes after checking them, and nothing that is neither kept nor awaited", async () => {
    await using bench = openBench();
    const sample = evenLayer(1, 3, 1000);
    const stored = bench.add(sample, [new FakeSource().add(sample)]);
    const blobs = new FakeBlobs();
    stored.blobs = blobs;
    blobs.blocks.set(1, blobOf(sample, 1));
    const opened = await bench.resolver.openBlob(sample.id, 1, ASK);
    assert.ok(opened !== undefined);
    assert.equal(opened.length, 1000);
    assert.equal(opened.from, "disk");
    const reader = new TapReader(opened);
    await reader.done;
    assert.deepEqual(reader.bytes, blobOf(sample, 1));
    await opened.verdict;
    assert.equal(await bench.resolver.openBlob(sample.id, 0, ASK), undefined);
    const { served } = bench.resolver.stats(sample.id);
    assert.deepEqual(served.disk, { requests: 1, blocks: 1, bytes: 1000 });
    assert.equal(bench.resolver.counts.relayBytes, 0);
  });

  it("discards kept blob bytes that are damaged, and fetches them", async () => {
    await using bench = openBench();
    const sample = evenLayer(2, 2, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    const blobs = new FakeBlobs();
    stored.blobs = blobs;
    const damaged = Buffer.from(blobOf(sample, 0));
    flip(damaged, 7);
    blobs.blocks.set(0, damaged);
    assert.equal(await bench.resolver.openBlob(sample.id, 0, ASK), undefined);
    assert.deepEqual(blobs.discarded, [0]);
    const opened = await bench.resolver.openBlob(sample.id, 0, FETCH);
    assert.ok(opened !== undefined);
    const reader = new TapReader(opened);
    await reader.done;
    assert.deepEqual(reader.bytes, blobOf(sample, 0));
    assert.equal(source.requests.length, 1);
  });

  it("gives an uncompressed layer's blocks from its decoded bytes", async () => {
    await using bench = openBench();
    const tar = sampleBytes(5, 3000);
    const builder = new BlockTableBuilder();
    for (let offset = 0; offset < 3000; offset += 1000) {
      const digest = createHash("sha256")
        .update(tar.subarray(offset, offset + 1000))
        .digest();
      builder.add({
        tarOffset: offset,
        tarLength: 1000,
        blobOffset: offset,
        blobLength: 1000,
        codec: "none",
        startBits: 0,
        atMemberStart: false,
        windowOffset: 0,
        windowLength: 0,
        blobSha256: digest,
        tarSha256: digest,
      });
    }
    const table = BlockTable.parse(builder.finish(), { blobBytes: 3000 });
    const stored = new FakeStored(table);
    stored.blocks.set(2, Buffer.from(tar.subarray(2000)));
    const damaged = Buffer.from(tar.subarray(0, 1000));
    flip(damaged, 0);
    stored.blocks.set(0, damaged);
    const layer = {
      id: "00",
      blobDigest: digestOf(tar),
      blobBytes: 3000,
      table,
      readWindow: (): Promise<undefined> => Promise.resolve(undefined),
      sources: () => [],
    };
    bench.resolver.addLayer(layer, stored);
    const opened = await bench.resolver.openBlob("00", 2, ASK);
    assert.ok(opened !== undefined);
    const reader = new TapReader(opened);
    await reader.done;
    assert.deepEqual(reader.bytes, tar.subarray(2000));
    assert.equal(await bench.resolver.openBlob("00", 0, ASK), undefined, "damaged on disk");
  });

  it("passes a block on while it arrives for a reader here, without another request", async () => {
    await using bench = openBench();
    const sample = evenLayer(3, 1, 1000);
    const source = new FakeSource().add(sample);
    source.pieceBytes = 100;
    const middle = gate();
    source.onPiece = (_request, offset) => (offset === 500 ? middle.wait : undefined);
    bench.add(sample, [source]);
    const here = bench.resolver.ensure(sample.id, { start: 0, end: 10 }, READER);
    await settle();
    const opened = await bench.resolver.openBlob(sample.id, 0, ASK);
    assert.ok(opened !== undefined);
    assert.equal(opened.from, "relay");
    const reader = new TapReader(opened);
    await settle();
    assert.deepEqual(reader.bytes, blobOf(sample, 0).subarray(0, 500));
    assert.equal(reader.verdict, "open");
    middle.open();
    await reader.done;
    await opened.verdict;
    await here;
    assert.deepEqual(reader.bytes, blobOf(sample, 0));
    assert.equal(source.requests.length, 1);
    const { served } = bench.resolver.stats(sample.id);
    assert.deepEqual(served.relay, { requests: 1, blocks: 1, bytes: 1000 });
    assert.equal(bench.resolver.counts.relayBytes, 0);
  });

  it("keeps nothing of what one child asked for, and what a second asks for", async () => {
    await using bench = openBench({ relayMemoryBytesMax: MIB });
    const sample = evenLayer(4, 2, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    const blobs = new FakeBlobs();
    stored.blobs = blobs;
    const get = async (child: string): Promise<string> => {
      const opened = await bench.resolver.openBlob(sample.id, 1, { ...FETCH, child });
      assert.ok(opened !== undefined);
      const reader = new TapReader(opened);
      await reader.done;
      await opened.verdict;
      assert.deepEqual(reader.bytes, blobOf(sample, 1));
      await settle();
      return opened.from;
    };
    assert.equal(await get("a"), "relay");
    assert.deepEqual([stored.writes, blobs.writes], [[], []]);
    assert.equal(await get("a"), "memory", "a moment later");
    assert.deepEqual([stored.writes, blobs.writes], [[], []], "the same child again");
    assert.equal(await get("b"), "memory");
    assert.deepEqual([stored.writes, blobs.writes], [[1], [1]]);
    assert.equal(source.requests.length, 1);
    bench.resolver.clearMemory();
    assert.equal(await get("c"), "disk");
    assert.deepEqual(bench.resolver.stats().served.memory.blocks, 2);
  });

  it("fetches again, and keeps, what the second child wants when memory has it no more", async () => {
    await using bench = openBench();
    const sample = evenLayer(5, 1, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    for (const expected of [[], [0]]) {
      const opened = await bench.resolver.openBlob(sample.id, 0, FETCH);
      assert.ok(opened !== undefined);
      const reader = new TapReader(opened);
      await reader.done;
      await opened.verdict;
      await settle();
      assert.deepEqual(stored.writes, expected);
    }
    assert.equal(source.requests.length, 2);
  });

  it("keeps at the first request where it is told to, and what a reader here wants meanwhile", async () => {
    await using bench = openBench();
    const sample = evenLayer(6, 3, 1000);
    const source = new FakeSource().add(sample);
    const held = gate();
    source.onRequest = () => held.wait;
    const stored = bench.add(sample, [source]);
    const root = await bench.resolver.openBlob(sample.id, 0, { ...FETCH, keepAfter: 1 });
    const relay = await bench.resolver.openBlob(sample.id, 2, FETCH);
    await settle();
    const here = bench.resolver.ensure(sample.id, { start: 2500, end: 2501 }, READER);
    held.open();
    await here;
    await root?.verdict;
    await relay?.verdict;
    await settle();
    assert.deepEqual(stored.writes.toSorted(), [0, 2]);
    assert.equal(source.requests.length, 2);
  });

  it("fetches only the blob bytes of a block whose decoded bytes are here", async () => {
    await using bench = openBench();
    const sample = evenLayer(7, 1, 1000);
    const stored = bench.add(sample, [new FakeSource().add(sample)]);
    const blobs = new FakeBlobs();
    stored.blobs = blobs;
    stored.blocks.set(0, sample.tar);
    const opened = await bench.resolver.openBlob(sample.id, 0, { ...FETCH, keepAfter: 1 });
    await opened?.verdict;
    await settle();
    assert.deepEqual([stored.writes, blobs.writes], [[], [0]]);
  });

  it("mixes no two attempts: who was given wrong bytes is told, who was not goes on", async () => {
    await using bench = openBench();
    const sample = evenLayer(8, 1, 1000);
    const liar = new FakeSource("parent", "https://parent.example").add(sample);
    const honest = new FakeSource().add(sample);
    for (const source of [liar, honest]) source.pieceBytes = 100;
    liar.alter = (bytes, offset) => {
      if (offset === 900) flip(bytes, 50);
      return bytes;
    };
    const end = gate();
    liar.onPiece = (_request, offset) => (offset === 900 ? end.wait : undefined);
    bench.add(sample, [liar, honest]);
    const eager = new TapReader((await bench.resolver.openBlob(sample.id, 0, FETCH)) ?? never());
    await settle();
    assert.equal(eager.bytes.length, 900);
    const lazy = (await bench.resolver.openBlob(sample.id, 0, FETCH)) ?? never();
    end.open();
    await bench.clock.advance(100);
    assert.equal(eager.verdict, "data-loss");
    await lazy.verdict;
    const reader = new TapReader(lazy);
    await reader.done;
    assert.deepEqual(reader.bytes, blobOf(sample, 0));
    assert.deepEqual(liar.badBlocks, [0, 0]);
    assert.equal(bench.resolver.counts.relayBytes, 0);
  });

  it("goes on invisibly at another source after a stream that was cut", async () => {
    await using bench = openBench();
    const sample = evenLayer(9, 1, 1000);
    const cut = new FakeSource("parent", "https://parent.example").add(sample);
    const whole = new FakeSource().add(sample);
    for (const source of [cut, whole]) source.pieceBytes = 100;
    cut.onPiece = (_request, offset) => {
      if (offset === 700) throw new DaemonError("unavailable", "reset");
    };
    bench.add(sample, [cut, whole]);
    const reader = new TapReader((await bench.resolver.openBlob(sample.id, 0, FETCH)) ?? never());
    await reader.done;
    assert.deepEqual(reader.bytes, blobOf(sample, 0));
    assert.equal(whole.requests.length, 1);
  });

  it("is told what befalls the block: no source, or a layer that is closed", async () => {
    await using bench = openBench();
    const sample = evenLayer(10, 2, 1000);
    const source = new FakeSource().add(sample);
    source.onRequest = () => {
      throw new DaemonError("not-found", "no such blob");
    };
    bench.add(sample, [source]);
    const lost = new TapReader((await bench.resolver.openBlob(sample.id, 0, FETCH)) ?? never());
    await lost.done;
    assert.equal(lost.verdict, "not-found");
    await bench.clock.advance(3000);
    source.onRequest = () => gate().wait;
    const closed = new TapReader((await bench.resolver.openBlob(sample.id, 1, FETCH)) ?? never());
    await settle();
    bench.resolver.removeLayer(sample.id);
    await closed.done;
    assert.equal(closed.end, "canceled");
    await assert.rejects(bench.resolver.openBlob(sample.id, 1, FETCH), { code: "not-found" });
  });

  it("gives up a fetch that only a child waited for, when it leaves", async () => {
    await using bench = openBench();
    const sample = evenLayer(11, 1, 1000);
    const source = new FakeSource().add(sample);
    source.onRequest = () => gate().wait;
    bench.add(sample, [source]);
    const controller = new AbortController();
    const opened = await bench.resolver.openBlob(sample.id, 0, {
      ...FETCH,
      signal: controller.signal,
    });
    await settle();
    assert.equal(source.open, 1);
    controller.abort(new DaemonError("canceled", "the child is gone"));
    await assert.rejects(opened?.verdict ?? Promise.resolve(), { code: "canceled" });
    await settle();
    assert.equal(source.open, 0);
    assert.deepEqual(bench.resolver.counts.flights, 0);
    assert.equal(bench.resolver.counts.relayBytes, 0);
  });

  it("is held up by nobody who does not read", async () => {
    await using bench = openBench();
    const sample = evenLayer(12, 1, 1000);
    bench.add(sample, [new FakeSource().add(sample)]);
    const idle = await bench.resolver.openBlob(sample.id, 0, FETCH);
    const here = await bench.resolver.ensure(sample.id, { start: 0, end: 1 }, READER);
    assert.ok("present" in here);
    await idle?.verdict;
    assert.equal(bench.resolver.counts.relayBytes, 1000);
    for await (const _piece of idle?.pieces ?? []);
    assert.equal(bench.resolver.counts.relayBytes, 0);
  });

  it("refuses more than its bound, bulk before readers, and counts a block once", async () => {
    await using bench = openBench();
    const sample = largeLayer(5, 16 * MIB);
    const source = new FakeSource();
    source.onRequest = () => gate().wait;
    const layer = { ...evenLayer(13, 1, 100).layer([source]), ...sample };
    bench.resolver.addLayer(layer, new FakeStored(sample.table));
    const bulk: OpenBlobOptions = { ...FETCH, priority: 2 };
    const controller = new AbortController();
    for (const index of [0, 1, 0, 1]) {
      await bench.resolver.openBlob(sample.id, index, { ...bulk, signal: controller.signal });
    }
    const over = bench.resolver.openBlob(sample.id, 2, bulk);
    await assert.rejects(over, (error) => errorCode(error) === "resource-exhausted");
    await bench.resolver.openBlob(sample.id, 2, { ...FETCH, signal: controller.signal });
    await bench.resolver.openBlob(sample.id, 3, { ...FETCH, signal: controller.signal });
    await assert.rejects(bench.resolver.openBlob(sample.id, 4, FETCH), {
      code: "resource-exhausted",
    });
    assert.equal(bench.resolver.counts.flights, 4);
    controller.abort(new DaemonError("canceled", "all gone"));
    await settle();
    assert.equal(bench.resolver.counts.relayBytes, 0);
    assert.equal(bench.resolver.counts.flights, 0);
  });

  it("does not give blocks of a frame that can only be had as a whole", async () => {
    await using bench = openBench();
    const block = { tarLength: 1000, codec: "zstd-sequential", frame: 1 } as const;
    const sample = sampleLayer(14, [block, block]);
    bench.add(sample, [new FakeSource().add(sample)]);
    assert.equal(await bench.resolver.openBlob(sample.id, 0, FETCH), undefined);
    await assert.rejects(bench.resolver.openBlob(sample.id, 2, FETCH), { code: "out-of-range" });
  });

  it("decodes for a reader here what memory still has from a child's request", async () => {
    await using bench = openBench({ relayMemoryBytesMax: MIB });
    const sample = evenLayer(15, 1, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    await (
      await bench.resolver.openBlob(sample.id, 0, FETCH)
    )?.verdict;
    await bench.resolver.ensure(sample.id, { start: 0, end: 1 }, READER);
    assert.deepEqual(stored.blocks.get(0), sample.tar);
    assert.equal(source.requests.length, 1);
  });
});

/** Blocks whose bytes never come. */
function largeLayer(
  count: number,
  blockBytes: number,
): { readonly id: string; readonly table: BlockTable; readonly blobBytes: number } {
  const builder = new BlockTableBuilder();
  for (let index = 0; index < count; index += 1) {
    builder.add({
      ...blockOf({ tarLength: blockBytes, blobLength: blockBytes, codec: "zstd" }),
      tarOffset: index * blockBytes,
      blobOffset: index * blockBytes,
    });
  }
  const blobBytes = count * blockBytes;
  return { id: "large", table: BlockTable.parse(builder.finish(), { blobBytes }), blobBytes };
}

function never(): never {
  throw new Error("nothing was opened");
}
