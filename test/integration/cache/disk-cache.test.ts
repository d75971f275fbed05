/** The disk cache on a real file system: sparse files, punched holes, kills, a full disk. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { punchHole } from "../../../src/base/native.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { BlockResolver } from "../../../src/block/index.ts";
import { DiskCache, nodeCacheFiles, openFill, readBootId } from "../../../src/cache/index.ts";
import type { CachedLayer, DiskCacheOptions, DropRanges } from "../../../src/cache/index.ts";
import { tarOf } from "../../support/block/cache-bench.ts";
import { writerLayer } from "../../support/block/cache-writer.ts";
import { FakeSource } from "../../support/block/fake-source.ts";
import { evenLayer, fakeDecodeBlock, fakeDecodeFrame } from "../../support/block/sample-layer.ts";
import type { SampleLayer } from "../../support/block/sample-layer.ts";

const run = promisify(execFile);
const MIB = 1024 * 1024;
const SIGNAL = { signal: new AbortController().signal };
const noReaders: DropRanges = () => Promise.resolve();

async function withFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "faasnet-cache-"));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function openCache(
  root: string,
  options: Partial<DiskCacheOptions> = {},
  { drop = noReaders, bootId }: { drop?: DropRanges; bootId?: string } = {},
): Promise<DiskCache> {
  const files = nodeCacheFiles(punchHole);
  const boot = bootId ?? (await readBootId());
  const dependencies = { clock: systemClock, logger: silentLogger, files, bootId: boot, drop };
  return DiskCache.open(root, dependencies, { reserveBytes: 0, ...options });
}

async function allocated(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}

/** Every range that the layer calls present holds the layer's bytes, read past the cache. */
async function checkPresent(layer: CachedLayer, sample: SampleLayer): Promise<number> {
  const bytes = await readFile(layer.decodedPath);
  let total = 0;
  for (const { start, end } of layer.presentRanges()) {
    const to = Math.min(end, sample.tar.length);
    assert.ok(bytes.subarray(start, to).equals(sample.tar.subarray(start, to)));
    total += to - start;
  }
  return total;
}

describe("DiskCache on a real file system", function () {
  this.timeout(60_000);

  it("frees the disk space of evicted blocks and keeps its quota in allocated bytes", async () => {
    await withFolder(async (root) => {
      const quotaBytes = 8 * MIB;
      await using cache = await openCache(root, { quotaBytes });
      const sample = evenLayer(1, 24, 700_001);
      const layer = await cache.layer(sample.id, sample.table);
      const path = layer.decodedPath;
      assert.equal((await stat(path)).size, layer.deviceBytes);
      let refused = 0;
      for (let index = 0; index < 24; index += 1) {
        while (!(await layer.write(index, tarOf(sample, index)))) {
          refused += 1;
          await systemClock.sleep(500, SIGNAL); // until held blocks may go
        }
        assert.ok((await allocated(path)) <= quotaBytes, `${await allocated(path)} allocated`);
      }
      assert.ok(refused > 0);
      assert.ok((await checkPresent(layer, sample)) > 4 * MIB);
      await cache.clear(SIGNAL);
      assert.equal(await allocated(path), 0);
      assert.equal(cache.usage().usedBytes, 0);
    });
  });

  it("vouches only for right blocks after each of six kill -9 of a writer", async () => {
    await withFolder(async (root) => {
      const sample = writerLayer();
      const program = fileURLToPath(
        new URL("../../support/block/cache-writer.js", import.meta.url),
      );
      let vouchedBytes = 0;
      for (let round = 0; round < 6; round += 1) {
        const child = spawn(process.execPath, [program, root, String(2 ** 40), String(round)], {
          stdio: ["ignore", "pipe", "inherit"],
        });
        let lines = 0;
        child.stdout.on("data", (piece: Buffer) => {
          lines += piece.toString().split("\n").length - 1;
        });
        const exited = once(child, "exit");
        const deadlineMs = systemClock.nowMs() + 20_000;
        while (lines < 30 + round * 11 && systemClock.nowMs() < deadlineMs) {
          if (child.exitCode !== null) break;
          await systemClock.sleep(2, SIGNAL);
        }
        child.kill("SIGKILL");
        await exited;
        assert.equal(child.signalCode, "SIGKILL");
        const cache = await openCache(root, { quotaBytes: 64 * MIB });
        const layer = await cache.layer(sample.id, sample.table);
        vouchedBytes += await checkPresent(layer, sample);
        await cache[Symbol.asyncDispose]();
      }
      assert.ok(vouchedBytes > MIB, `${vouchedBytes} bytes survived`);
    });
  });

  it("verifies blocks again after a new boot and discards damaged ones", async () => {
    await withFolder(async (root) => {
      const sample = evenLayer(2, 6, 200_000);
      const first = await openCache(root);
      const old = await first.layer(sample.id, sample.table);
      for (let index = 0; index < 6; index += 1) await old.write(index, tarOf(sample, index));
      await first.flush();
      const files = nodeCacheFiles(punchHole);
      await using file = await files.open(old.decodedPath);
      await file.punch(400_000, 4096 * 10); // as a lost write would look
      await using cache = await openCache(root, {}, { bootId: "another" });
      const layer = await cache.layer(sample.id, sample.table);
      assert.deepEqual(layer.presentRanges(), []);
      await cache.confirmAll(SIGNAL);
      assert.equal(layer.has(2), false);
      assert.equal(layer.usage().blocks, 5);
      await checkPresent(layer, sample);
      await first[Symbol.asyncDispose]();
    });
  });

  it("passes through on a full file system and recovers when it has room", async () => {
    await withFolder(async (folder) => {
      const root = join(folder, "small");
      await mkdir(root);
      try {
        await run("mount", ["-t", "tmpfs", "-o", "size=4m", "tmpfs", root]);
      } catch {
        throw new Error("needs root and tmpfs");
      }
      try {
        await using cache = await openCache(root, { quotaBytes: 64 * MIB });
        const sample = evenLayer(3, 20, 512 * 1024);
        const layer = await cache.layer(sample.id, sample.table);
        const kept: boolean[] = [];
        for (let index = 0; index < 12; index += 1) {
          kept.push(await layer.write(index, tarOf(sample, index)));
        }
        assert.ok(kept.includes(true) && kept.includes(false));
        await checkPresent(layer, sample);
        await systemClock.sleep(3500, SIGNAL);
        assert.equal(await layer.write(15, tarOf(sample, 15)), true);
        await checkPresent(layer, sample);
      } finally {
        await run("umount", [root]);
      }
    });
  });

  it("adopts what a filling pass wrote", async () => {
    await withFolder(async (root) => {
      const sample = evenLayer(4, 9, 300_000);
      await using cache = await openCache(root);
      const estimate = { blobBytes: sample.blob.length, isCompressed: true };
      const fill = await cache.beginFill(sample.id, estimate);
      assert.ok(fill !== undefined);
      const writer = await openFill(fill.plan);
      for (let offset = 0; offset < sample.tar.length; offset += 65_536) {
        await writer.write(sample.tar.subarray(offset, offset + 65_536));
      }
      const kept = await writer.finish();
      await writer[Symbol.asyncDispose]();
      const layer = await cache.adoptFilled(fill, sample.id, sample.table, kept);
      assert.equal(await checkPresent(layer, sample), sample.tar.length);
      assert.equal((await stat(layer.decodedPath)).size, layer.deviceBytes);
    });
  });

  it("serves readers through the resolver, present blocks at once", async () => {
    await withFolder(async (root) => {
      const sample = evenLayer(5, 48, MIB);
      await using cache = await openCache(root);
      const layer = await cache.layer(sample.id, sample.table);
      await using resolver = new BlockResolver({
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
        decodeBlock: fakeDecodeBlock,
        decodeFrame: fakeDecodeFrame,
      });
      resolver.addLayer(sample.layer([new FakeSource().add(sample)]), layer);
      const readers = Array.from({ length: 8 }, async (_, at) => {
        for (let index = at; index < 48; index += 8) {
          const range = { start: index * MIB + 1000, end: index * MIB + 5096 };
          const result = await resolver.ensure(sample.id, range, { priority: 0, ...SIGNAL });
          assert.ok("present" in result);
        }
      });
      await Promise.all(readers);
      assert.equal(await checkPresent(layer, sample), 48 * MIB);
      const times: number[] = [];
      for (let at = 0; at < 2000; at += 1) {
        const start = (at * 7919 * 4096) % (47 * MIB);
        const begin = performance.now();
        await resolver.ensure(sample.id, { start, end: start + 4096 }, { priority: 0, ...SIGNAL });
        times.push(performance.now() - begin);
      }
      times.sort((a, b) => a - b);
      assert.ok((times[1980] ?? 0) < 10, `p99 of present blocks ${times[1980]} ms`);
    });
  });
});
