/** The disk cache over simulated files: presence, quota, eviction, restarts. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { errorCode } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { DiskCache } from "../../../src/cache/index.ts";
import { CacheBench, ROOT, tarOf } from "../../support/block/cache-bench.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { gate } from "../../support/block/fake-source.ts";
import { watch } from "../../support/block/resolver.ts";
import { evenLayer, flip, sampleLayer } from "../../support/block/sample-layer.ts";

const BLOCK = 4096;
const SIGNAL = { signal: new AbortController().signal };
const NEVER_MS = 10_000;

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.equal(errorCode(error), expected, String(error));
    return true;
  };
}

describe("DiskCache", () => {
  it("keeps blocks, reads them back and says which are present", async () => {
    const bench = new CacheBench();
    await using cache = await bench.open();
    const sample = evenLayer(1, 5, 1000);
    const layer = await cache.layer(sample.id, sample.table);
    for (const index of [0, 1, 4]) assert.equal(await bench.write(layer, sample, index), true);
    assert.deepEqual(layer.presentRanges(), [
      { start: 0, end: 2000 },
      { start: 4000, end: 5120 },
    ]);
    const bytes = await layer.read({ start: 500, end: 1500 });
    assert.deepEqual(Buffer.from(bytes), sample.tar.subarray(500, 1500));
    await assert.rejects(layer.read({ start: 1500, end: 2500 }), code("not-found"));
    assert.equal(layer.hold(0, 1), true);
    assert.equal(layer.hold(1, 2), false);
    assert.equal(bench.files.bytesOf(layer.decodedPath)?.length, 5120);
  });

  it("gives every caller the same handle and refuses another table or a strange name", async () => {
    const bench = new CacheBench();
    await using cache = await bench.open();
    const sample = evenLayer(2, 5, 1000);
    const other = evenLayer(3, 5, 1000);
    const [one, two] = await Promise.all([
      cache.layer(sample.id, sample.table),
      cache.layer(sample.id, sample.table),
    ]);
    assert.equal(one, two);
    await assert.rejects(cache.layer(sample.id, other.table), code("failed-precondition"));
    await assert.rejects(cache.layer("../../etc/passwd", sample.table), code("invalid-argument"));
  });

  it("believes its bitmaps after a clean stop", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(4, 5, 1000);
    {
      await using cache = await bench.open();
      const layer = await cache.layer(sample.id, sample.table);
      await bench.write(layer, sample, 2);
    }
    bench.bootId = "boot-2";
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.deepEqual(layer.presentRanges(), [{ start: 2000, end: 3000 }]);
    assert.equal(cache.usage().usedBytes, 4096);
  });

  it("believes them after a kill, for blocks that were flushed", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(5, 5, 1000);
    const first = await bench.open();
    const layer = await first.layer(sample.id, sample.table);
    await bench.write(layer, sample, 2);
    await bench.clock.advance(1500);
    await bench.write(layer, sample, 3);
    const again = await (await bench.open()).layer(sample.id, sample.table);
    assert.deepEqual(again.presentRanges(), [{ start: 2000, end: 3000 }]);
  });

  it("verifies each block again after an unclean stop and a new boot", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(6, 5, 5000);
    const first = await bench.open();
    const old = await first.layer(sample.id, sample.table);
    for (const index of [0, 1, 2]) await bench.write(old, sample, index);
    await bench.clock.advance(1500);
    const path = old.decodedPath;
    const bytes = bench.files.bytesOf(path);
    assert.ok(bytes !== undefined);
    flip(bytes, 7000); // in block 1
    bench.bootId = "boot-2";
    bench.keeper.present.clear();
    {
      await using cache = await bench.open();
      const layer = await cache.layer(sample.id, sample.table);
      assert.deepEqual(layer.presentRanges(), []);
      assert.equal(layer.isDoubtful(0), true);
      assert.equal(await layer.confirm(0, SIGNAL), true);
      assert.equal(await layer.confirm(1, SIGNAL), false);
      assert.equal(layer.isDoubtful(1), false);
      assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 5000 }]);
      assert.equal(await bench.write(layer, sample, 1), true);
      assert.deepEqual(Buffer.from(await layer.read({ start: 0, end: 10_000 })).length, 10_000);
    }
    // Block 2 was never looked at: it is still in doubt after a clean stop.
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.equal(layer.isDoubtful(2), true);
    await cache.confirmAll(SIGNAL);
    assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 15_000 }]);
  });

  it("empties a layer whose block table changed", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(7, 4, 1000);
    const recut = sampleLayer(7, [{ tarLength: 3000 }, { tarLength: 1000 }]);
    assert.equal(recut.id, sample.id);
    {
      await using cache = await bench.open();
      await bench.write(await cache.layer(sample.id, sample.table), sample, 0);
    }
    await using cache = await bench.open();
    const layer = await cache.layer(recut.id, recut.table);
    assert.deepEqual(layer.presentRanges(), []);
  });

  it("evicts the least recently used block first and never exceeds the quota", async () => {
    const bench = new CacheBench({ quotaBytes: 10 * BLOCK });
    await using cache = await bench.open();
    const sample = evenLayer(8, 40, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    for (let index = 0; index < 10; index += 1) await bench.write(layer, sample, index);
    await bench.clock.advance(NEVER_MS);
    layer.touched([{ start: 0, end: 1 }]);
    await bench.write(layer, sample, 20);
    await settle();
    assert.equal(layer.has(0), true, "touched");
    assert.equal(layer.has(1), false, "the oldest");
    assert.equal(layer.has(20), true);
    for (let index = 21; index < 40; index += 1) {
      await bench.clock.advance(NEVER_MS);
      assert.equal(await bench.write(layer, sample, index), true);
      assert.ok(cache.usage().usedBytes <= 10 * BLOCK);
    }
    assert.ok(cache.usage().counts.evictedBlocks >= 20);
    const ranges = layer.presentRanges();
    for (const { start, end } of ranges) {
      assert.deepEqual(
        Buffer.from(await layer.read({ start, end })),
        sample.tar.subarray(start, end),
      );
    }
  });

  it("passes through rather than evict what a reader was just told of", async () => {
    const bench = new CacheBench({ quotaBytes: 4 * BLOCK });
    await using cache = await bench.open();
    const sample = evenLayer(9, 8, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    for (let index = 0; index < 4; index += 1) await bench.write(layer, sample, index);
    assert.equal(await layer.write(5, tarOf(sample, 5)), false);
    assert.ok(bench.events.includes("cache-full"));
    assert.equal(cache.usage().counts.refusedWrites, 1);
    await bench.clock.advance(NEVER_MS);
    assert.equal(await layer.write(5, tarOf(sample, 5)), true);
  });

  it("does not evict a block that is being read", async () => {
    const bench = new CacheBench({ quotaBytes: 2 * BLOCK });
    await using cache = await bench.open();
    const sample = evenLayer(10, 8, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    await bench.write(layer, sample, 0);
    await bench.write(layer, sample, 1);
    await bench.clock.advance(NEVER_MS);
    const unpin = layer.file.pin(0, 1);
    assert.equal(await layer.write(2, tarOf(sample, 2)), false);
    unpin();
    assert.equal(await layer.write(2, tarOf(sample, 2)), true);
  });

  it("says a block is absent from the moment it leaves, and writes it only when it is gone", async () => {
    const bench = new CacheBench({ quotaBytes: 2 * BLOCK });
    await using cache = await bench.open();
    const sample = evenLayer(11, 8, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    await bench.write(layer, sample, 0);
    await bench.write(layer, sample, 1);
    await bench.clock.advance(NEVER_MS);
    const hold = gate();
    bench.keeper.onDrop = () => hold.wait;
    const pushed = watch(layer.write(2, tarOf(sample, 2)));
    await settle();
    assert.equal(layer.has(0), false);
    const back = watch(layer.write(0, tarOf(sample, 0)));
    await settle();
    assert.deepEqual([pushed.state, back.state], ["waiting", "waiting"]);
    hold.open();
    await settle();
    assert.equal(pushed.state, "done");
    assert.notEqual(back.state, "waiting");
    for (const { start, end } of layer.presentRanges()) {
      assert.deepEqual(
        Buffer.from(await layer.read({ start, end })),
        sample.tar.subarray(start, end),
      );
    }
  });

  it("punches nothing while the keeper is away", async () => {
    const bench = new CacheBench({ quotaBytes: 2 * BLOCK });
    await using cache = await bench.open();
    const sample = evenLayer(12, 8, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    await bench.write(layer, sample, 0);
    await bench.write(layer, sample, 1);
    await bench.clock.advance(NEVER_MS);
    bench.keeper.isAway = true;
    assert.equal(await layer.write(2, tarOf(sample, 2)), false);
    assert.deepEqual(layer.presentRanges(), [{ start: 0, end: 2 * BLOCK }]);
    assert.ok(cache.usage().counts.failedEvictions > 0);
    bench.keeper.isAway = false;
    await bench.clock.advance(NEVER_MS);
    assert.equal(await layer.write(2, tarOf(sample, 2)), true);
  });

  it("gives a keeper that does not answer a limited time", async () => {
    const bench = new CacheBench({ quotaBytes: 2 * BLOCK });
    const sample = evenLayer(13, 8, BLOCK);
    const { clock, files, bootId } = bench;
    const drop = (): Promise<void> => new Promise(() => undefined);
    const dependencies = { clock, files, bootId, drop, logger: silentLogger };
    await using cache = await DiskCache.open(ROOT, dependencies, bench.options);
    const layer = await cache.layer(sample.id, sample.table);
    await layer.write(0, tarOf(sample, 0));
    await layer.write(1, tarOf(sample, 1));
    await clock.advance(NEVER_MS);
    const write = watch(layer.write(2, tarOf(sample, 2)));
    await clock.advance(9000);
    assert.equal(write.state, "waiting");
    await clock.advance(2000);
    assert.equal(write.state, "done");
    assert.equal(layer.has(0) && layer.has(1), true);
  });

  it("evicts when the disk is fuller than the quota says, then passes through", async () => {
    const bench = new CacheBench({ reserveBytes: 100_000 });
    await using cache = await bench.open();
    const sample = evenLayer(14, 8, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    assert.equal(await layer.write(0, tarOf(sample, 0)), true);
    bench.files.freeSpace = 100_000;
    await bench.clock.advance(NEVER_MS);
    assert.equal(await layer.write(1, tarOf(sample, 1)), false);
    assert.equal(layer.has(0), false, "evicted for room");
    bench.files.freeSpace = 200_000;
    await bench.clock.advance(NEVER_MS);
    assert.equal(await layer.write(1, tarOf(sample, 1)), true);
  });

  it("evicts and tries again once on ENOSPC, then passes through", async () => {
    const bench = new CacheBench();
    await using cache = await bench.open();
    const sample = evenLayer(15, 8, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    await bench.write(layer, sample, 0);
    await bench.clock.advance(NEVER_MS);
    let failures = 0;
    bench.files.onWrite = (path, bytes) => {
      if (bytes.length < BLOCK || failures >= 1) return;
      failures += 1;
      throw Object.assign(new Error(`ENOSPC ${path}`), { code: "ENOSPC" });
    };
    assert.equal(await bench.write(layer, sample, 1), true);
    assert.equal(layer.has(0), false);
    failures = -100;
    assert.equal(await layer.write(2, tarOf(sample, 2)), false);
    assert.equal(layer.has(2), false);
    assert.ok(bench.events.includes("cache-write-failed"));
    await settle();
    assert.equal(cache.usage().usedBytes, layer.usage().bytes);
    failures = 1;
    assert.equal(await layer.write(2, tarOf(sample, 2)), true);
  });

  it("lists layers, open or not, and evicts those that nobody opened first", async () => {
    const bench = new CacheBench({ quotaBytes: 10 * BLOCK });
    const idle = evenLayer(16, 4, BLOCK);
    const used = evenLayer(17, 16, BLOCK);
    {
      await using cache = await bench.open();
      const layer = await cache.layer(idle.id, idle.table);
      for (let index = 0; index < 4; index += 1) await bench.write(layer, idle, index);
    }
    await using cache = await bench.open();
    const layer = await cache.layer(used.id, used.table);
    await bench.write(layer, used, 0);
    const list = cache.list();
    assert.deepEqual(
      list
        .map(({ layerId, isOpen, decodedBlocks, decodedBytes }) => [
          layerId,
          isOpen,
          decodedBlocks,
          decodedBytes,
        ])
        .sort(),
      [
        [idle.id, false, 4, 4 * BLOCK],
        [used.id, true, 1, BLOCK],
      ].sort(),
    );
    for (let index = 1; index < 8; index += 1) await bench.write(layer, used, index);
    assert.equal(layer.has(0), true);
    assert.ok(bench.keeper.drops.some(({ layerId }) => layerId === idle.id));
    const woken = await cache.layer(idle.id, idle.table);
    assert.deepEqual(woken.presentRanges(), []);
    assert.equal(cache.usage().usedBytes, 8 * BLOCK);
  });

  it("evicts blocks unused since the start before used ones, oldest layer first", async () => {
    const bench = new CacheBench({ quotaBytes: 8 * BLOCK });
    const older = evenLayer(18, 3, BLOCK);
    const newer = evenLayer(19, 3, BLOCK);
    {
      await using cache = await bench.open();
      const one = await cache.layer(newer.id, newer.table);
      const two = await cache.layer(older.id, older.table);
      for (let index = 0; index < 3; index += 1) {
        await bench.write(two, older, index);
        await bench.write(one, newer, index);
      }
      one.isUsed = true;
    }
    const presence = join(ROOT, "decoded", `${older.id}.present`);
    await (await bench.files.open(presence)).setModifiedTime(1000);
    await using cache = await bench.open();
    const one = await cache.layer(newer.id, newer.table);
    const two = await cache.layer(older.id, older.table);
    two.touched([{ start: 2 * BLOCK, end: 3 * BLOCK }]);
    const more = evenLayer(20, 8, BLOCK);
    const layer = await cache.layer(more.id, more.table);
    for (let index = 0; index < 4; index += 1) await bench.write(layer, more, index);
    assert.deepEqual([two.has(0), two.has(1), two.has(2)], [false, false, true]);
    assert.equal(one.has(2), true);
  });

  it("clears every layer through the keeper while they stay readable", async () => {
    const bench = new CacheBench();
    await using cache = await bench.open();
    const sample = evenLayer(21, 6, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    for (let index = 0; index < 6; index += 1) await bench.write(layer, sample, index);
    const cleared = cache.clear(SIGNAL);
    await bench.clock.advance(NEVER_MS);
    assert.deepEqual(await cleared, { bytes: 6 * BLOCK, blocks: 6 });
    assert.equal(cache.usage().usedBytes, 0);
    assert.deepEqual(layer.presentRanges(), []);
    assert.deepEqual([...(bench.keeper.present.get(sample.id) ?? [])], []);
    assert.equal(await bench.write(layer, sample, 3), true);
  });

  it("removes a layer's files and what they counted for", async () => {
    const bench = new CacheBench({ blobs: "on" });
    await using cache = await bench.open();
    const sample = evenLayer(22, 6, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    await bench.write(layer, sample, 1);
    await layer.blobs?.write(1, sample.blob.subarray(BLOCK, 2 * BLOCK));
    assert.equal(cache.usage().usedBytes, 2 * BLOCK);
    await cache.removeLayer(sample.id);
    assert.equal(cache.usage().usedBytes, 0);
    assert.deepEqual(
      bench.files.paths.filter((path) => path.includes(sample.id)),
      [],
    );
    assert.equal(await layer.write(2, tarOf(sample, 2)), false);
  });

  it("keeps blob bytes by block and evicts them before decoded ones", async () => {
    const bench = new CacheBench({ blobs: "on", quotaBytes: 9 * BLOCK - 1 });
    await using cache = await bench.open();
    const sample = evenLayer(23, 16, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    const { blobs } = layer;
    assert.ok(blobs !== undefined);
    for (let index = 0; index < 4; index += 1) {
      await bench.write(layer, sample, index);
      await blobs.write(index, sample.blob.subarray(index * BLOCK, (index + 1) * BLOCK));
    }
    assert.deepEqual(
      Buffer.from((await blobs.read(2)) ?? []),
      sample.blob.subarray(2 * BLOCK, 3 * BLOCK),
    );
    await bench.clock.advance(NEVER_MS);
    for (let index = 4; index < 8; index += 1) await bench.write(layer, sample, index);
    assert.equal(layer.usage().blocks, 8);
    assert.equal(blobs.usage().blocks, 0);
    // Blob bytes never push out decoded ones.
    await blobs.write(9, sample.blob.subarray(9 * BLOCK, 10 * BLOCK));
    assert.equal(blobs.has(9), false);
    assert.equal(layer.usage().blocks, 8);
  });

  it("keeps the neighbours of a punched block whole when they share a sector", async () => {
    const bench = new CacheBench({ quotaBytes: 1024 ** 3 });
    await using cache = await bench.open();
    const lengths = [1000, 3000, 300, 5000, 100, 9000, 700];
    const sample = sampleLayer(
      24,
      lengths.map((tarLength) => ({ tarLength })),
    );
    const layer = await cache.layer(sample.id, sample.table);
    for (const index of lengths.keys()) await bench.write(layer, sample, index);
    await bench.clock.advance(NEVER_MS);
    for (const [left, gone] of [[1], [3], [2], [0, 5]].entries()) {
      const slot = layer.slot;
      const clearing = gone.filter((index) => layer.has(index));
      for (const index of clearing) {
        const range = layer.file.reach(index);
        await bench.keeper.drop(sample.id, [range]);
      }
      assert.ok(slot >= 0 && left >= 0);
      const leaving = layer.file.leave(clearing);
      await leaving.finish();
      for (const { start, end } of layer.presentRanges()) {
        const to = Math.min(end, sample.tar.length);
        assert.deepEqual(
          Buffer.from(await layer.read({ start, end: to })),
          sample.tar.subarray(start, to),
        );
      }
    }
  });

  it("refuses to start where holes cannot be punched", async () => {
    const bench = new CacheBench();
    bench.files.failPunch = true;
    await assert.rejects(bench.open(), code("failed-precondition"));
  });

  it("sweeps bytes that no bitmap vouches for, once the keeper can be told", async () => {
    const bench = new CacheBench();
    const size = 1024 * 1024;
    const sample = evenLayer(25, 4, size);
    const first = await bench.open();
    const old = await first.layer(sample.id, sample.table);
    for (let index = 0; index < 3; index += 1) await bench.write(old, sample, index);
    // Killed before the flush: the keeper still believes, the bitmap does not.
    bench.keeper.isAway = true;
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.deepEqual(layer.presentRanges(), []);
    assert.equal(cache.usage().usedBytes, 3 * size);
    await settle();
    bench.keeper.isAway = false;
    await bench.clock.advance(NEVER_MS);
    assert.equal(cache.usage().usedBytes, 0);
    assert.deepEqual([...(bench.keeper.present.get(sample.id) ?? [])], []);
    assert.ok(bench.files.bytesOf(layer.decodedPath)?.every((byte) => byte === 0));
  });

  it("trims to a quota that was lowered", async () => {
    const bench = new CacheBench();
    const sample = evenLayer(26, 20, BLOCK);
    {
      await using cache = await bench.open();
      const layer = await cache.layer(sample.id, sample.table);
      for (let index = 0; index < 20; index += 1) await bench.write(layer, sample, index);
    }
    bench.options = { ...bench.options, quotaBytes: 5 * BLOCK };
    await using cache = await bench.open();
    const layer = await cache.layer(sample.id, sample.table);
    assert.equal(layer.usage().blocks, 20);
    await cache.trim();
    assert.equal(layer.usage().blocks, 5);
    assert.equal(cache.usage().usedBytes, 5 * BLOCK);
  });
});
