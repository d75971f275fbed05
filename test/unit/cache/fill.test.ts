/** Filling a layer while its map is made, and adopting what the pass wrote. */
import assert from "node:assert/strict";
import { FillWriter } from "../../../src/cache/index.ts";
import type { CacheFill, DiskCache } from "../../../src/cache/index.ts";
import { CacheBench } from "../../support/block/cache-bench.ts";
import { evenLayer } from "../../support/block/sample-layer.ts";
import type { SampleLayer } from "../../support/block/sample-layer.ts";

const MIB = 1024 * 1024;
const BLOCK = MIB / 2;

/** The child's part, over the simulated files. */
async function fillBy(bench: CacheBench, fill: CacheFill, tar: Buffer): Promise<number> {
  const file = await bench.files.open(fill.plan.path);
  await using writer = new FillWriter(
    {
      write: async (bytes, position) => {
        await file.writeAt(bytes, position);
        return true;
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    fill.plan.bytesMax,
  );
  for (let offset = 0; offset < tar.length; offset += 100_000) {
    await writer.write(tar.subarray(offset, offset + 100_000));
  }
  return (await writer.finish()).keptBytes;
}

async function begin(cache: DiskCache, sample: SampleLayer): Promise<CacheFill> {
  const fill = await cache.beginFill(sample.id, {
    blobBytes: sample.blob.length,
    isCompressed: false,
  });
  assert.ok(fill !== undefined);
  return fill;
}

describe("DiskCache filled by a map-making pass", () => {
  it("adopts a whole layer at once, and it survives a restart", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(1, 5, BLOCK);
    {
      await using cache = await bench.open();
      const fill = await begin(cache, sample);
      assert.ok(cache.usage().fillBytes >= sample.tar.length);
      const keptBytes = await fillBy(bench, fill, sample.tar);
      const layer = await cache.adoptFilled(fill, sample.id, sample.table, { keptBytes });
      assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 5 * BLOCK }]);
      assert.equal(cache.usage().fillBytes, 0);
      assert.equal(cache.usage().usedBytes, 5 * BLOCK);
      const bytes = await layer.read({ start: 0, end: sample.tar.length });
      assert.ok(sample.tar.equals(bytes));
      assert.deepEqual(
        bench.files.paths.filter((path) => path.includes("/fill/")),
        [],
      );
      await bench.clock.advance(1500);
    }
    bench.bootId = "boot-2";
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 5 * BLOCK }]);
  });

  it("believes none of it when the machine stops before the data is on the disk", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(2, 4, BLOCK);
    const first = await bench.open();
    bench.files.disk.syncAll();
    const fill = await begin(first, sample);
    const keptBytes = await fillBy(bench, fill, sample.tar);
    await first.adoptFilled(fill, sample.id, sample.table, { keptBytes });
    bench.files.losePower();
    bench.bootId = "boot-2";
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.deepEqual(layer.presentRanges(), []);
    assert.equal(await layer.confirm(1, { signal: new AbortController().signal }), false);
  });

  it("keeps the first blocks of a layer that does not fit", async () => {
    const bench = new CacheBench({ quotaBytes: 3 * MIB });
    await using cache = await bench.open();
    const sample = evenLayer(3, 12, BLOCK);
    const fill = await begin(cache, sample);
    assert.equal(fill.plan.bytesMax, 3 * MIB);
    const keptBytes = await fillBy(bench, fill, sample.tar);
    assert.equal(keptBytes, 3 * MIB);
    const layer = await cache.adoptFilled(fill, sample.id, sample.table, { keptBytes });
    assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 6 * BLOCK }]);
    assert.ok(cache.usage().usedBytes <= 3 * MIB);
    assert.equal(bench.files.bytesOf(layer.decodedPath)?.length, 12 * BLOCK);
  });

  it("pushes out at most a share of what is used, and gives up without room", async () => {
    const bench = new CacheBench({ quotaBytes: 16 * MIB });
    await using cache = await bench.open();
    const used = evenLayer(4, 32, BLOCK);
    const layer = await cache.layer(used.id, used.table);
    for (let index = 0; index < 30; index += 1) await bench.write(layer, used, index);
    await bench.clock.advance(10_000);
    const sample = evenLayer(5, 24, BLOCK);
    const one = await begin(cache, sample);
    assert.equal(one.plan.bytesMax, 4 * MIB);
    const two = await cache.beginFill(evenLayer(6, 1, BLOCK).id, {
      blobBytes: 100 * MIB,
      isCompressed: true,
    });
    assert.equal(two, undefined, "the share is for all passes together");
    assert.ok(cache.usage().usedBytes <= 16 * MIB);
    assert.ok(layer.usage().blocks >= 22);
    await one[Symbol.asyncDispose]();
    assert.equal(cache.usage().fillBytes, 0);
  });

  it("copies only what a layer lacks that is in the cache already", async () => {
    const bench = new CacheBench();
    await using cache = await bench.open();
    const sample = evenLayer(7, 4, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    await bench.write(layer, sample, 1);
    const fill = await begin(cache, sample);
    const keptBytes = await fillBy(bench, fill, sample.tar);
    const again = await cache.adoptFilled(fill, sample.id, sample.table, { keptBytes });
    assert.equal(again, layer);
    assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 4 * BLOCK }]);
    assert.equal(cache.usage().usedBytes, 4 * BLOCK);
  });

  it("removes what a pass left that nobody adopted", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(8, 4, BLOCK);
    const first = await bench.open();
    await fillBy(bench, await begin(first, sample), sample.tar);
    await using cache = await bench.open();
    assert.deepEqual(
      bench.files.paths.filter((path) => path.includes("/fill/")),
      [],
    );
    assert.equal(cache.usage().usedBytes, 0);
  });
});

describe("FillWriter", () => {
  it("stops keeping at its bound or when the disk is full, and says how much is good", async () => {
    const written: number[] = [];
    const file = {
      write: (bytes: Uint8Array): Promise<boolean> => {
        if (written.length === 2) return Promise.resolve(false);
        written.push(bytes.length);
        return Promise.resolve(true);
      },
      [Symbol.asyncDispose]: (): Promise<void> => Promise.resolve(),
    };
    await using writer = new FillWriter(file, 100 * MIB);
    for (let at = 0; at < 5; at += 1) await writer.write(Buffer.alloc(MIB));
    assert.equal(writer.isKeeping, false);
    assert.deepEqual(await writer.finish(), { keptBytes: 2 * MIB });
    written.length = 0;
    await using bounded = new FillWriter(file, 1000);
    await bounded.write(Buffer.alloc(600));
    await bounded.write(Buffer.alloc(600));
    assert.deepEqual(await bounded.finish(), { keptBytes: 1000 });
    assert.equal(bounded.isKeeping, false);
  });
});
