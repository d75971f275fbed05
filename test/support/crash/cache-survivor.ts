/** What a crash left of the disk cache, opened again: no wrong byte, no lost space, it goes on. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { silentLogger } from "../../../src/base/log.ts";
import { DiskCache } from "../../../src/cache/index.ts";
import type { CachedLayer } from "../../../src/cache/index.ts";
import type { Prng } from "../../fuzz/prng.ts";
import { ROOT, tarOf } from "../block/cache-bench.ts";
import { blobOf } from "../block/fake-blobs.ts";
import type { SampleLayer } from "../block/sample-layer.ts";
import { SimFiles } from "../block/sim-files.ts";
import { cacheOptions, dataBytes, SPACE_SLACK_BYTES } from "./cache-case.ts";
import { Scheduler } from "./scheduler.ts";
import { isSettled, SimDisk } from "./sim-disk.ts";
import type { DiskSnapshot } from "./sim-disk.ts";

const SIGNAL = { signal: new AbortController().signal };

export interface CacheCounts {
  crashPoints: number;
  states: number;
}

export interface CacheSetting {
  readonly samples: readonly SampleLayer[];
  readonly quotaBytes: number;
  readonly blobs: "on" | "off";
}

interface Survivor {
  readonly disk: SimDisk;
  /** Same boot ID: a kill, or a file system that was lost and mounted again. */
  readonly bootId: string;
}

export async function checkSurvivors(
  point: DiskSnapshot,
  setting: CacheSetting,
  count: number,
  random: Prng,
  counts: CacheCounts,
): Promise<void> {
  counts.crashPoints += 1;
  for (const survivor of survivorsOf(point, count, random)) {
    counts.states += 1;
    const again = await checkSurvivor(survivor, setting, random);
    for (const { point: second, bootId } of again) {
      for (const { disk } of survivorsOf(second, 1, random)) {
        counts.states += 1;
        await checkSurvivor({ disk, bootId }, setting, random);
      }
    }
  }
}

function survivorsOf(point: DiskSnapshot, count: number, random: Prng): Survivor[] {
  const survivors: Survivor[] = [{ disk: SimDisk.afterKill(point), bootId: "boot-1" }];
  const cuts = isSettled(point) ? 1 : count;
  for (let at = 0; at < cuts; at += 1) {
    const bootId = random.oneIn(3) ? "boot-1" : "boot-2";
    survivors.push({ disk: SimDisk.afterPowerCut(point, random), bootId });
  }
  return survivors;
}

/** The result: points of a second crash, while the first was being recovered from. */
async function checkSurvivor(
  { disk, bootId }: Survivor,
  setting: CacheSetting,
  random: Prng,
): Promise<{ point: DiskSnapshot; bootId: string }[]> {
  const { samples, quotaBytes, blobs } = setting;
  for (const sample of samples) checkBitmap(disk, sample);
  const scheduler = new Scheduler(random);
  const again: { point: DiskSnapshot; bootId: string }[] = [];
  const changesUntil = random.oneIn(6) ? 1 + random.below(60) : Infinity;
  let changes = 0;
  disk.onChange = () => {
    changes += 1;
    if (changes === changesUntil) again.push({ point: disk.snapshot(), bootId });
  };
  const open = async (): Promise<DiskCache> => {
    const owner = { isDead: false };
    const files = new SimFiles(disk);
    const clock = scheduler.clock(owner);
    const drop = (): Promise<void> => Promise.resolve();
    const parts = { clock, logger: silentLogger, files, bootId, drop };
    return scheduler.run(DiskCache.open(ROOT, parts, cacheOptions(quotaBytes, blobs)));
  };
  const cache = await open();
  const layers: [SampleLayer, CachedLayer][] = [];
  for (const sample of samples) {
    layers.push([sample, await scheduler.run(cache.layer(sample.id, sample.table))]);
  }
  for (const [sample, layer] of layers) await scheduler.run(checkServed(sample, layer));
  await scheduler.pass(60_000);
  checkSwept(disk, cache, quotaBytes);
  for (const [sample, layer] of layers) await scheduler.run(fillUp(sample, layer));
  checkSwept(disk, cache, quotaBytes);
  await scheduler.run(cache[Symbol.asyncDispose]());
  await checkBelieved(await open(), scheduler, samples);
  return again;
}

/** Every bit of a bitmap on the disk vouches for right bytes on the disk. */
function checkBitmap(disk: SimDisk, sample: SampleLayer): void {
  for (const kind of ["decoded", "blobs"] as const) {
    const data = disk.inode(join(ROOT, kind, sample.id))?.view.bytes ?? Buffer.alloc(0);
    const bits = disk.inode(join(ROOT, kind, `${sample.id}.present`))?.view.bytes;
    if (bits?.length !== 128 + Math.ceil(sample.table.count / 8)) continue;
    if (bits.subarray(0, 8).toString("latin1") !== "FNPRES01") continue;
    for (let index = 0; index < sample.table.count; index += 1) {
      if ((((bits[128 + (index >> 3)] ?? 0) >> (index & 7)) & 1) === 0) continue;
      const { tarOffset, tarLength, blobOffset, blobLength } = sample.table.at(index);
      const start = kind === "decoded" ? tarOffset : blobOffset;
      const bytes = data.subarray(start, start + (kind === "decoded" ? tarLength : blobLength));
      const expected = kind === "decoded" ? tarOf(sample, index) : blobOf(sample, index);
      assert.ok(bytes.equals(expected), `bit of block ${index} of ${sample.id} in ${kind}`);
    }
  }
}

async function checkServed(sample: SampleLayer, layer: CachedLayer): Promise<void> {
  for (let index = 0; index < sample.table.count; index += 1) {
    if (!layer.has(index) && !(await layer.confirm(index, SIGNAL))) continue;
    const { tarOffset, tarLength } = sample.table.at(index);
    const bytes = await layer.read({ start: tarOffset, end: tarOffset + tarLength });
    assert.ok(tarOf(sample, index).equals(bytes), `block ${index} of ${sample.id} is served`);
  }
}

/** After a clean stop the blob store's bits are as good as the others, too. */
async function checkBlobs(sample: SampleLayer, layer: CachedLayer): Promise<void> {
  for (let index = 0; index < sample.table.count; index += 1) {
    if (layer.blobs?.file.has(index) !== true) continue;
    const bytes = await layer.blobs.read(index);
    assert.ok(bytes !== undefined && blobOf(sample, index).equals(bytes), `blob of ${index}`);
  }
}

/** Nothing that nobody knows of, and no more than the quota. */
function checkSwept(disk: SimDisk, cache: DiskCache, quotaBytes: number): void {
  for (const path of disk.names.keys()) {
    const isKnown =
      /^\/cache(\/(decoded|blobs|fill))?$/.test(path) ||
      /^\/cache\/(decoded|blobs)\/[0-9a-f]{64}(\.present)?$/.test(path) ||
      path === "/cache/session.json";
    assert.ok(isKnown, `${path} is left over`);
  }
  const { usedBytes } = cache.usage();
  assert.ok(usedBytes <= quotaBytes, `${usedBytes} of ${quotaBytes} in the books`);
  const used = dataBytes(disk);
  const limit = usedBytes + SPACE_SLACK_BYTES;
  assert.ok(used <= limit, `${used} bytes on disk, ${usedBytes} in the books`);
}

/** The cache takes blocks again, as far as there is room, and gives them back. */
async function fillUp(sample: SampleLayer, layer: CachedLayer): Promise<void> {
  for (let index = 0; index < sample.table.count; index += 1) {
    await layer.write(index, tarOf(sample, index));
  }
  await checkServed(sample, layer);
}

/** After a clean stop the bitmaps are believed: each bit must be right. */
async function checkBelieved(
  cache: DiskCache,
  scheduler: Scheduler,
  samples: readonly SampleLayer[],
): Promise<void> {
  let present = 0;
  for (const sample of samples) {
    const layer = await scheduler.run(cache.layer(sample.id, sample.table));
    await scheduler.run(checkServed(sample, layer));
    await scheduler.run(checkBlobs(sample, layer));
    for (let index = 0; index < sample.table.count; index += 1) {
      if (layer.has(index)) present += 1;
    }
  }
  assert.ok(present > 0, "nothing was kept over a clean stop");
}
