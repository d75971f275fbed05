/** Filling the blob store while a layer's map is made. */
import assert from "node:assert/strict";
import { FillWriter } from "../../../src/cache/index.ts";
import type { CacheFill, CachedLayer, DiskCache, KeptBytes } from "../../../src/cache/index.ts";
import { CacheBench, ROOT } from "../../support/block/cache-bench.ts";
import { blobOf } from "../../support/block/fake-blobs.ts";
import { evenLayer, sampleLayer } from "../../support/block/sample-layer.ts";
import type { SampleLayer } from "../../support/block/sample-layer.ts";

const MIB = 1024 * 1024;
const BLOCK = MIB / 2;

async function write(bench: CacheBench, plan: CacheFill["plan"], bytes: Buffer): Promise<number> {
  const file = await bench.files.open(plan.path);
  await using writer = new FillWriter(
    {
      write: async (piece, position) => {
        await file.writeAt(piece, position);
        return true;
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    },
    plan.bytesMax,
  );
  await writer.write(bytes);
  return (await writer.finish()).keptBytes;
}

/** The child's part, over the simulated files. */
async function fillBy(
  bench: CacheBench,
  fill: CacheFill,
  sample: SampleLayer,
): Promise<Required<KeptBytes>> {
  const { blob } = fill.plan;
  return {
    keptBytes: await write(bench, fill.plan, sample.tar),
    keptBlobBytes:
      blob === undefined ? 0 : await write(bench, { ...blob, blob: undefined }, sample.blob),
  };
}

async function begin(
  cache: DiskCache,
  sample: SampleLayer,
  isCompressed = true,
): Promise<CacheFill> {
  const fill = await cache.beginFill(sample.id, { blobBytes: sample.blob.length, isCompressed });
  assert.ok(fill !== undefined);
  return fill;
}

async function checkBlobs(layer: CachedLayer, sample: SampleLayer): Promise<number[]> {
  const kept: number[] = [];
  for (let index = 0; index < sample.table.count; index += 1) {
    const bytes = await layer.blobs?.read(index);
    if (bytes === undefined) continue;
    assert.ok(blobOf(sample, index).equals(bytes), `block ${index}`);
    kept.push(index);
  }
  return kept;
}

function fillFiles(bench: CacheBench): string[] {
  return bench.files.paths.filter((path) => path.includes("/fill/"));
}

describe("DiskCache's blob store filled by a map-making pass", () => {
  it("adopts the blob with the tar, and it survives a restart", async () => {
    const bench = new CacheBench({ blobs: "on" });
    const sample = evenLayer(1, 5, BLOCK);
    {
      await using cache = await bench.open();
      const fill = await begin(cache, sample);
      const kept = await fillBy(bench, fill, sample);
      assert.equal(kept.keptBlobBytes, sample.blob.length);
      const layer = await cache.adoptFilled(fill, sample.id, sample.table, kept);
      assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 5 * BLOCK }]);
      assert.deepEqual(await checkBlobs(layer, sample), [0, 1, 2, 3, 4]);
      const { decodedBytes, blobBytes, fillBytes, usedBytes } = cache.usage();
      assert.deepEqual([decodedBytes, blobBytes, fillBytes], [5 * BLOCK, 5 * BLOCK, 0]);
      assert.equal(usedBytes, 10 * BLOCK);
      assert.deepEqual(fillFiles(bench), []);
      await bench.clock.advance(1500);
    }
    bench.bootId = "boot-2";
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.deepEqual(await checkBlobs(layer, sample), [0, 1, 2, 3, 4]);
  });

  it("believes none of it when the machine stops before the data is on the disk", async () => {
    const bench = new CacheBench({ blobs: "on" });
    const sample = evenLayer(2, 4, BLOCK);
    const first = await bench.open();
    bench.files.disk.syncAll();
    const fill = await begin(first, sample);
    const kept = await fillBy(bench, fill, sample);
    await first.adoptFilled(fill, sample.id, sample.table, kept);
    bench.files.losePower();
    bench.bootId = "boot-2";
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.deepEqual(await checkBlobs(layer, sample), []);
  });

  it("leaves out what no block of it vouches for: gaps, and frames without block digests", async () => {
    const bench = new CacheBench({ blobs: "on" });
    await using cache = await bench.open();
    const frame = { tarLength: BLOCK, codec: "zstd-sequential", frame: 1 } as const;
    const sample = sampleLayer(3, [
      { tarLength: BLOCK },
      frame,
      frame,
      { tarLength: BLOCK, gap: 100_000 },
    ]);
    const fill = await begin(cache, sample);
    const kept = await fillBy(bench, fill, sample);
    const layer = await cache.adoptFilled(fill, sample.id, sample.table, kept);
    assert.deepEqual(
      [layer.blobs?.has(0), layer.blobs?.has(1), layer.blobs?.has(3)],
      [true, false, true],
    );
    const inode = bench.files.disk.inode(`${ROOT}/blobs/${sample.id}`);
    assert.ok((inode?.view.allocatedBytes ?? 0) <= 2 * BLOCK + 2 * 4096);
    assert.ok(cache.usage().blobBytes <= 2 * BLOCK + 2 * 4096);
  });

  it("reserves room apart: none for the blob does not keep the tar out", async () => {
    const bench = new CacheBench({ quotaBytes: 16 * MIB, blobs: "on" });
    await using cache = await bench.open();
    const used = evenLayer(4, 30, BLOCK);
    const layer = await cache.layer(used.id, used.table);
    for (let index = 0; index < 30; index += 1) await bench.write(layer, used, index);
    await bench.clock.advance(10_000);
    const sample = evenLayer(5, 6, BLOCK);
    const fill = await begin(cache, sample);
    assert.equal(fill.plan.blob, undefined, "decoded blocks are not pushed out for blob bytes");
    const kept = await fillBy(bench, fill, sample);
    const filled = await cache.adoptFilled(fill, sample.id, sample.table, kept);
    assert.deepEqual(await checkBlobs(filled, sample), []);
    assert.ok(filled.usage().blocks > 0);
    assert.ok(cache.usage().usedBytes <= 16 * MIB);
  });

  it("keeps the first blocks of a blob that does not fit, and stays within the quota", async () => {
    const bench = new CacheBench({ quotaBytes: 58 * MIB, blobs: "on" });
    await using cache = await bench.open();
    const sample = sampleLayer(
      6,
      Array.from({ length: 24 }, () => ({ tarLength: BLOCK + 1 })),
    );
    const fill = await begin(cache, sample);
    assert.equal(fill.plan.blob?.bytesMax, 9 * MIB - 4 * 24, "what the tar's estimate left");
    await fill[Symbol.asyncDispose]();
    assert.equal(cache.usage().fillBytes, 0);
    const again = await begin(cache, sample);
    const kept = await fillBy(bench, again, sample);
    assert.equal(kept.keptBlobBytes, 9 * MIB - 4 * 24);
    const layer = await cache.adoptFilled(again, sample.id, sample.table, kept);
    assert.deepEqual(await checkBlobs(layer, sample), [...Array(17).keys()]);
    const { blobBytes, usedBytes } = cache.usage();
    assert.ok(usedBytes <= 58 * MIB);
    assert.equal(blobBytes, layer.blobs?.usage().bytes);
  });

  it("copies only what the blob store of an open layer lacks", async () => {
    const bench = new CacheBench({ blobs: "on" });
    await using cache = await bench.open();
    const sample = evenLayer(7, 4, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    await layer.blobs?.write(2, blobOf(sample, 2));
    const fill = await begin(cache, sample);
    const kept = await fillBy(bench, fill, sample);
    const again = await cache.adoptFilled(fill, sample.id, sample.table, kept);
    assert.equal(again, layer);
    assert.deepEqual(await checkBlobs(layer, sample), [0, 1, 2, 3]);
    assert.equal(cache.usage().blobBytes, 4 * BLOCK);
    assert.deepEqual(fillFiles(bench), []);
  });

  it("plans none where blobs are not kept, nor for an uncompressed layer", async () => {
    const off = new CacheBench({ blobs: "off" });
    await using without = await off.open();
    const sample = evenLayer(8, 2, BLOCK);
    assert.equal((await begin(without, sample)).plan.blob, undefined);
    const on = new CacheBench({ blobs: "on" });
    await using cache = await on.open();
    assert.equal((await begin(cache, sample, false)).plan.blob, undefined);
  });

  it("removes what a pass left that nobody adopted", async () => {
    const bench = new CacheBench({ blobs: "on" });
    const sample = evenLayer(9, 4, BLOCK);
    const first = await bench.open();
    await fillBy(bench, await begin(first, sample), sample);
    assert.equal(fillFiles(bench).length, 2);
    await using cache = await bench.open();
    assert.deepEqual(fillFiles(bench), []);
    assert.equal(cache.usage().usedBytes, 0);
  });
});
