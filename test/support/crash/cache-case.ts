/**
 * The disk cache and the keeper in one simulated machine: readers, eviction, filling passes, kills
 * and restarts in any order; every reader gets the layer's bytes. Along the way, states that a kill
 * or a power cut may leave are taken and checked (cache-survivor.ts).
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { errorCode, systemErrorName } from "../../../src/base/errors.ts";
import { Prng } from "../../fuzz/prng.ts";
import { ROOT } from "../block/cache-bench.ts";
import { sampleLayer } from "../block/sample-layer.ts";
import type { SampleLayer } from "../block/sample-layer.ts";
import type { SimFiles } from "../block/sim-files.ts";
import { checkSurvivors } from "./cache-survivor.ts";
import type { CacheCounts } from "./cache-survivor.ts";
import { Scheduler } from "./scheduler.ts";
import { SimDisk } from "./sim-disk.ts";
import type { DiskSnapshot } from "./sim-disk.ts";
import { SimImageService } from "./sim-image-service.ts";
import type { SimMachine } from "./sim-image-service.ts";
import { SimKeeperProcess } from "./sim-keeper-process.ts";

/** Blocks smaller than an allocation unit, larger, and not aligned to anything. */
const LENGTHS = [5000, 4096, 100, 9000, 3000, 12_288, 200, 6000, 4096, 777];
export const SAMPLES: readonly SampleLayer[] = [1, 2, 3].map((seed) =>
  sampleLayer(
    seed,
    LENGTHS.map((tarLength) => ({ tarLength })),
  ),
);
/** The last layer is brought in by filling passes. */
const FILLED = 2;
const QUOTA_BYTES = 70_000;
/** What a filling pass must be able to reserve (FILL_WRITE_BYTES, the layer and its blob). */
const FILL_BYTES = 1024 * 1024 + 5 * 64 * 1024;

export type Step =
  | {
      readonly kind: "read";
      readonly layer: number;
      readonly index: number;
      readonly count: number;
    }
  | { readonly kind: "write" | "blob" | "touch"; readonly layer: number; readonly index: number }
  | { readonly kind: "pause"; readonly ms: number }
  | { readonly kind: "clear" | "fill" | "hang-up" | "failed-sync" | "settle" }
  | { readonly kind: "restart" | "kill" };

const at = { layer: fc.nat({ max: FILLED }), index: fc.nat({ max: LENGTHS.length - 1 }) };
const count = fc.integer({ min: 1, max: 4 });
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant("read" as const), ...at, count }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constantFrom("write" as const, "blob" as const), ...at }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("touch" as const), ...at }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("pause" as const),
      ms: fc.constantFrom(10, 1100, 4000),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        "clear" as const,
        "fill" as const,
        "hang-up" as const,
        "failed-sync" as const,
        "settle" as const,
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom("restart" as const, "kill" as const) }),
  },
);

export interface CachePlan {
  readonly steps: readonly Step[];
  readonly blobs: "on" | "off";
  readonly seed: number;
}

export const cachePlans = (maxLength: number): fc.Arbitrary<CachePlan> =>
  fc.record({
    steps: fc.array(step, { minLength: 3, maxLength }),
    blobs: fc.constantFrom<("on" | "off")[]>("on", "off", "off"),
    seed: fc.nat(),
  });

export interface CacheRunOptions {
  /** Of so many changes of the disk, one is a crash point whose states are checked. */
  readonly pointEvery: number;
  readonly statesPerPoint: number;
}

class Run {
  readonly #plan: CachePlan;
  readonly #random: Prng;
  readonly #scheduler: Scheduler;
  readonly #machine: SimMachine;
  readonly #quotaBytes: number;
  readonly points: DiskSnapshot[] = [];
  readonly #work: Promise<void>[] = [];
  #service: SimImageService;
  #stopping: SimImageService | undefined;
  /** Changes of the disk until the kill that is under way. */
  #killIn = Infinity;
  #failsSync = false;

  constructor(plan: CachePlan, options: CacheRunOptions) {
    this.#plan = plan;
    this.#random = new Prng(plan.seed);
    this.#scheduler = new Scheduler(this.#random);
    const disk = new SimDisk();
    disk.makeFolder(ROOT);
    disk.syncAll();
    const hasFills = plan.steps.some(({ kind }) => kind === "fill");
    this.#quotaBytes = QUOTA_BYTES + (hasFills ? FILL_BYTES : 0);
    this.#machine = {
      scheduler: this.#scheduler,
      disk,
      keeper: new SimKeeperProcess(this.#scheduler, disk),
      samples: SAMPLES,
      options: cacheOptions(this.#quotaBytes, plan.blobs),
      bootId: "boot-1",
    };
    this.#service = this.#newService();
    disk.onChange = () => {
      if (this.#random.oneIn(options.pointEvery)) this.points.push(disk.snapshot());
      this.#killIn -= 1;
      if (this.#killIn === 0) this.#service.kill();
      this.#checkSpace();
    };
  }

  get quotaBytes(): number {
    return this.#quotaBytes;
  }

  async run(): Promise<void> {
    await this.#scheduler.run(this.#service.start());
    for (const one of this.#plan.steps) await this.#step(one);
    await this.#settle();
    await this.#readEverything();
    await this.#stop();
    this.points.push(this.#machine.disk.snapshot());
  }

  async #step(one: Step): Promise<void> {
    const service = this.#service;
    switch (one.kind) {
      case "read":
        this.#begin(this.#read(one.layer, one.index, one.count));
        return;
      case "write":
        this.#begin(service.write(sampleAt(one.layer), one.index));
        return;
      case "blob":
        this.#begin(service.writeBlob(sampleAt(one.layer), one.index));
        return;
      case "touch": {
        const offset = sampleAt(one.layer).table.tarOffsetOf(one.index);
        service.layer(sampleAt(one.layer))?.touched([{ start: offset, end: offset + 1 }]);
        return;
      }
      case "clear":
        this.#begin(this.#clear(service));
        return;
      case "fill":
        this.#begin(this.#fill(service));
        return;
      case "hang-up":
        service.hangUp();
        return;
      case "failed-sync":
        this.#failsSync = true;
        return;
      case "pause":
        await this.#scheduler.pass(one.ms);
        return;
      case "settle":
        await this.#settle();
        return;
      case "restart":
        await this.#stop();
        await this.#startAgain();
        return;
      case "kill":
        await this.#kill();
    }
  }

  /** A stop that cannot write what it should ends like a kill. */
  async #stop(): Promise<void> {
    this.#stopping = this.#service;
    try {
      await this.#scheduler.run(this.#service.stop());
    } catch (error) {
      if (systemErrorName(error) !== "EIO") throw error;
      this.#service.kill();
    }
  }

  /** In the middle of whatever is under way, or a little later. */
  async #kill(): Promise<void> {
    this.#killIn = 1 + this.#random.below(12);
    await this.#scheduler.pass(this.#random.below(1500));
    this.#killIn = Infinity;
    this.#service.kill();
    if (this.#random.oneIn(2)) await this.#scheduler.pass(50);
    await this.#startAgain();
  }

  async #startAgain(): Promise<void> {
    for (;;) {
      this.#service = this.#newService();
      // Now and then it is killed again while it starts.
      if (this.#random.oneIn(4)) this.#killIn = 1 + this.#random.below(20);
      const service = this.#service;
      const started = service.start().then(() => true as const);
      const isStarted = await this.#scheduler.run(Promise.race([started, service.died]));
      this.#killIn = Infinity;
      if (isStarted) return;
    }
  }

  #newService(): SimImageService {
    const service = new SimImageService(this.#machine);
    service.files.onSync = (path) => {
      if (!this.#failsSync || !/\/(decoded|blobs)\/[0-9a-f]{64}$/.test(path)) return;
      this.#failsSync = false;
      throw Object.assign(new Error("EIO: as told"), { code: "EIO" });
    };
    return service;
  }

  /** A container's read; it must get the layer's bytes, whatever happens meanwhile. */
  async #read(layer: number, index: number, blocks: number): Promise<void> {
    const sample = sampleAt(layer);
    const { table } = sample;
    const start = table.tarOffsetOf(index) + this.#random.below(90);
    const last = Math.min(index + blocks, table.count);
    const end = last === table.count ? table.tarBytes : table.tarOffsetOf(last);
    const bytes = await this.#machine.keeper.read(sample.id, start, end - start);
    assert.deepEqual(bytes, sample.tar.subarray(start, end), `${start}-${end} of layer ${layer}`);
  }

  async #readEverything(): Promise<void> {
    for (const layer of SAMPLES.keys()) {
      for (const index of LENGTHS.keys()) {
        await this.#scheduler.run(this.#read(layer, index, 1));
      }
    }
  }

  async #clear(service: SimImageService): Promise<void> {
    try {
      await service.cache.clear({ signal: new AbortController().signal });
    } catch (error) {
      // It says so when readers hold on to what they read.
      if (errorCode(error) !== "unavailable") throw error;
    }
  }

  /** What the child process of a map-making pass does, and the parent afterwards. */
  async #fill(service: SimImageService): Promise<void> {
    const sample = sampleAt(FILLED);
    const { cache, files, owner } = service;
    const fill = await cache.beginFill(sample.id, {
      blobBytes: sample.blob.length,
      isCompressed: true,
    });
    if (fill === undefined) return;
    const { path, blob } = fill.plan;
    const keptBytes = await this.#writeFill(files, path, sample.tar);
    const keptBlobBytes =
      blob === undefined ? 0 : await this.#writeFill(files, blob.path, sample.blob);
    if (owner.isDead) return;
    await cache.adoptFilled(fill, sample.id, sample.table, { keptBytes, keptBlobBytes });
  }

  /** All of it, or the first part. */
  async #writeFill(files: SimFiles, path: string, bytes: Buffer): Promise<number> {
    const file = await files.open(path);
    const kept = this.#random.oneIn(2) ? bytes.length : this.#random.below(bytes.length);
    for (let from = 0; from < kept; from += 10_000) {
      await file.writeAt(bytes.subarray(from, Math.min(kept, from + 10_000)), from);
    }
    return kept;
  }

  #begin(work: Promise<unknown>): void {
    const service = this.#service;
    const done = work.then(
      () => undefined,
      (error: unknown) => {
        // A service that is being stopped or has died answers nobody.
        const isServing = service !== this.#stopping && !service.owner.isDead;
        if (service === this.#service && isServing) throw error;
        if (error instanceof assert.AssertionError) throw error;
      },
    );
    done.catch(() => undefined);
    this.#work.push(done);
  }

  /** Whatever was begun by those who live ends, and the background work too. */
  async #settle(): Promise<void> {
    await this.#scheduler.pass(40_000);
    const open = await Promise.race([
      Promise.all(this.#work).then(() => 0),
      this.#scheduler.pass(1).then(() => this.#work.length),
    ]);
    if (open === 0) this.#work.length = 0;
  }

  #checkSpace(): void {
    const used = dataBytes(this.#machine.disk);
    assert.ok(
      used <= this.#quotaBytes + SPACE_SLACK_BYTES,
      `${used} of ${this.#quotaBytes} bytes on disk`,
    );
  }
}

/** Orphans that are not worth a sweep, in each of two files of each layer. */
const ORPHAN_SLACK_BYTES = 4096;
export const SPACE_SLACK_BYTES = 2 * SAMPLES.length * ORPHAN_SLACK_BYTES;

export function cacheOptions(quotaBytes: number, blobs: "on" | "off"): object {
  return { quotaBytes, reserveBytes: 0, blobs, orphanSlackBytes: ORPHAN_SLACK_BYTES };
}

export function dataBytes(disk: SimDisk): number {
  let bytes = 0;
  for (const [path, inode] of disk.names) {
    if (/\/(decoded|blobs)\/[0-9a-f]{64}$|\/fill\//.test(path)) bytes += inode.view.allocatedBytes;
  }
  return bytes;
}

function sampleAt(layer: number): SampleLayer {
  const sample = SAMPLES[layer];
  assert.ok(sample !== undefined);
  return sample;
}

export async function checkCache(
  plan: CachePlan,
  options: CacheRunOptions,
  counts: CacheCounts,
): Promise<void> {
  const run = new Run(plan, options);
  await run.run();
  const random = new Prng(plan.seed, 1);
  for (const point of run.points) {
    const setting = { samples: SAMPLES, quotaBytes: run.quotaBytes, blobs: plan.blobs };
    await checkSurvivors(point, setting, options.statesPerPoint, random, counts);
  }
}
