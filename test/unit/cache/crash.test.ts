/**
 * The cache stopped at any operation, by a kill or a power cut: nobody is ever served bytes that
 * are not the layer's, neither by the cache after the restart nor by a keeper that lived on.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import type { CachedLayer, DiskCache } from "../../../src/cache/index.ts";
import { CacheBench, ROOT, tarOf } from "../../support/block/cache-bench.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { sampleLayer } from "../../support/block/sample-layer.ts";
import type { SampleLayer } from "../../support/block/sample-layer.ts";

const SIGNAL = { signal: new AbortController().signal };
/** Blocks smaller than an allocation unit, larger, and not aligned to anything. */
const LENGTHS = [5000, 4096, 100, 9000, 3000, 12_288, 200, 6000, 4096, 777];
const SAMPLES = [1, 2].map((seed) =>
  sampleLayer(
    seed,
    LENGTHS.map((tarLength) => ({ tarLength })),
  ),
);

type Step =
  | { readonly kind: "write"; readonly layer: number; readonly indexes: readonly number[] }
  | { readonly kind: "pause" }
  | { readonly kind: "touch"; readonly layer: number; readonly index: number }
  | { readonly kind: "clear" }
  | { readonly kind: "restart" };

const layerIndex = fc.nat({ max: SAMPLES.length - 1 });
const blockIndex = fc.nat({ max: LENGTHS.length - 1 });
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant("write" as const),
        layer: layerIndex,
        indexes: fc.array(blockIndex, { minLength: 1, maxLength: 4 }),
      }),
    },
    { weight: 4, arbitrary: fc.constant({ kind: "pause" as const }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant("touch" as const),
        layer: layerIndex,
        index: blockIndex,
      }),
    },
    { weight: 1, arbitrary: fc.constant({ kind: "clear" as const }) },
    { weight: 1, arbitrary: fc.constant({ kind: "restart" as const }) },
  ),
  { minLength: 2, maxLength: 16 },
);

const blobSwitch = fc.constantFrom<("on" | "off")[]>("on", "off", "off");

class World {
  readonly bench: CacheBench;
  cache: DiskCache | undefined;
  layers: CachedLayer[] = [];

  /** Blob bytes go first: without them decoded blocks are evicted all the time. */
  constructor(blobs: "on" | "off") {
    this.bench = new CacheBench({ quotaBytes: 60_000, blobs });
  }

  async open(): Promise<void> {
    this.cache = await this.bench.open();
    this.layers = [];
    for (const sample of SAMPLES) this.layers.push(await this.cache.layer(sample.id, sample.table));
    // What the image service does on start: the keeper believes what is present now.
    for (const [at, sample] of SAMPLES.entries()) {
      this.bench.keeper.present.delete(sample.id);
      this.bench.keeper.believe(sample.id, clipped(sample, this.layers[at]));
    }
  }

  async close(): Promise<void> {
    await this.cache?.[Symbol.asyncDispose]();
  }

  /** Failures are those of a machine that has stopped. */
  async run(script: readonly Step[]): Promise<void> {
    try {
      if (this.cache === undefined) await this.open();
      for (const step of script) await this.#step(step);
    } catch (error) {
      if (!this.bench.files.isDown) throw error;
    }
  }

  async #step(step: Step): Promise<void> {
    const { bench } = this;
    switch (step.kind) {
      case "write": {
        const layer = this.layers[step.layer];
        const sample = SAMPLES[step.layer];
        assert.ok(layer !== undefined && sample !== undefined);
        const writes = step.indexes.map(async (index) => {
          const { blobOffset, blobLength } = sample.table.at(index);
          const blob = sample.blob.subarray(blobOffset, blobOffset + blobLength);
          await Promise.all([bench.write(layer, sample, index), layer.blobs?.write(index, blob)]);
        });
        await Promise.all(writes);
        return;
      }
      case "pause":
        await bench.clock.advance(4000);
        return;
      case "touch": {
        const offset = SAMPLES[step.layer]?.table.tarOffsetOf(step.index) ?? 0;
        this.layers[step.layer]?.touched([{ start: offset, end: offset + 1 }]);
        return;
      }
      case "clear": {
        const clearing = this.cache?.clear(SIGNAL).catch((error: unknown) => {
          if (!bench.files.isDown) throw error;
        });
        await bench.clock.advance(20_000);
        await clearing;
        return;
      }
      case "restart":
        await this.cache?.[Symbol.asyncDispose]();
        await this.open();
    }
  }
}

function clipped(
  sample: SampleLayer,
  layer: CachedLayer | undefined,
): { start: number; end: number }[] {
  const ranges = layer?.presentRanges() ?? [];
  return ranges.map(({ start, end }) => ({ start, end: Math.min(end, sample.tar.length) }));
}

/** What the keeper would read from the file now is what the layer holds. */
function checkKeeper({ keeper, files }: CacheBench): void {
  for (const sample of SAMPLES) {
    const bytes = files.bytesOf(join(ROOT, "decoded", sample.id));
    for (const { start, end } of keeper.present.get(sample.id) ?? []) {
      assert.deepEqual(bytes?.subarray(start, end), sample.tar.subarray(start, end));
    }
  }
}

/** Every bit of a bitmap on the disk vouches for right bytes on the disk. */
function checkBitmaps({ files }: CacheBench): void {
  for (const sample of SAMPLES) {
    const data = files.bytesOf(join(ROOT, "decoded", sample.id)) ?? Buffer.alloc(0);
    const bits = files.bytesOf(join(ROOT, "decoded", `${sample.id}.present`)) ?? Buffer.alloc(0);
    const header = bits.subarray(0, 8).toString("latin1");
    if (header !== "FNPRES01") continue;
    for (let index = 0; index < sample.table.count; index += 1) {
      if ((((bits[128 + (index >> 3)] ?? 0) >> (index & 7)) & 1) === 0) continue;
      const { tarOffset, tarLength } = sample.table.at(index);
      const bytes = data.subarray(tarOffset, tarOffset + tarLength);
      assert.deepEqual(bytes, tarOf(sample, index), `bit of block ${index}`);
    }
  }
}

async function checkServed(world: World): Promise<void> {
  for (const [at, sample] of SAMPLES.entries()) {
    const layer = world.layers[at];
    assert.ok(layer !== undefined);
    for (let index = 0; index < sample.table.count; index += 1) {
      if (!layer.has(index) && !(await layer.confirm(index, SIGNAL))) continue;
      const { tarOffset, tarLength } = sample.table.at(index);
      const bytes = await layer.read({ start: tarOffset, end: tarOffset + tarLength });
      assert.deepEqual(Buffer.from(bytes), tarOf(sample, index));
    }
  }
  assert.ok((world.cache?.usage().usedBytes ?? 0) <= 60_000 + 2 * 8192);
}

describe("DiskCache over a crash at any operation", () => {
  it("serves no wrong byte after a kill, and neither does the keeper that lived on", async () => {
    await fc.assert(
      fc.asyncProperty(
        blobSwitch,
        steps,
        steps,
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        async (kept, before, after, when, part) => {
          const operations = await countOperations(kept, before);
          const world = new World(kept);
          const atOperation = 1 + Math.floor(when * operations);
          world.bench.files.crash = { atOperation, part };
          await world.run(before);
          await settle();
          checkKeeper(world.bench);
          checkBitmaps(world.bench);
          world.bench.files.isDown = true;
          await settle();
          world.bench.files.afterKill();
          world.cache = undefined;
          await world.open();
          await checkServed(world);
          checkKeeper(world.bench);
          await world.run(after);
          checkKeeper(world.bench);
          await checkServed(world);
          await world.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it("serves no wrong byte after a power cut, and no bitmap vouches for one", async () => {
    await fc.assert(
      fc.asyncProperty(
        blobSwitch,
        steps,
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.infiniteStream(fc.boolean()),
        async (kept, script, when, part, coins: Iterator<boolean>) => {
          const operations = await countOperations(kept, script);
          const world = new World(kept);
          const atOperation = 1 + Math.floor(when * operations);
          world.bench.files.crash = { atOperation, part };
          await world.run(script);
          await settle();
          world.bench.files.isDown = true;
          await settle();
          world.bench.files.afterPowerCut(() => coins.next().value === true);
          checkBitmaps(world.bench);
          world.bench.bootId = "boot-2";
          world.bench.keeper.present.clear();
          world.cache = undefined;
          await world.open();
          for (const layer of world.layers) assert.deepEqual(layer.presentRanges(), []);
          await checkServed(world);
          await world.run(script);
          checkKeeper(world.bench);
          await checkServed(world);
          await world.close();
        },
      ),
      { numRuns: 60 },
    );
  });

  it("serves no wrong byte after a kill of the second start and a later power cut", async () => {
    await fc.assert(
      fc.asyncProperty(
        blobSwitch,
        steps,
        steps,
        fc.integer({ min: 1, max: 200 }),
        fc.infiniteStream(fc.boolean()),
        async (kept, first, second, atOperation, coins: Iterator<boolean>) => {
          const world = new World(kept);
          world.bench.files.crash = { atOperation, part: 0.5 };
          await world.run(first);
          await settle();
          world.bench.files.isDown = true;
          await settle();
          world.bench.files.afterKill();
          world.cache = undefined;
          const { files } = world.bench;
          files.crash = { atOperation: files.operations + atOperation, part: 0.5 };
          await world.run(second);
          await settle();
          files.isDown = true;
          await settle();
          files.afterPowerCut(() => coins.next().value === true);
          world.bench.bootId = "boot-2";
          world.bench.keeper.present.clear();
          world.cache = undefined;
          await world.open();
          await checkServed(world);
        },
      ),
      { numRuns: 40 },
    );
  });
});

async function countOperations(kept: "on" | "off", script: readonly Step[]): Promise<number> {
  const world = new World(kept);
  await world.run(script);
  return world.bench.files.operations;
}
