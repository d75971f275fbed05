/**
 * The image service as a process of the simulation: the product's disk cache and keeper client;
 * the resolver is replaced by a few lines that write right bytes, files and wire are simulated.
 */
import type { ByteRange } from "../../../src/base/range-set.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { DiskCache } from "../../../src/cache/index.ts";
import type { CachedLayer, DiskCacheOptions } from "../../../src/cache/index.ts";
import type { Handlers } from "../../../src/control/index.ts";
import { KeeperClient } from "../../../src/rootfs/keeper-client.ts";
import type { FetchReply } from "../../../src/rootfs/keeper-client.ts";
import { ROOT, tarOf } from "../block/cache-bench.ts";
import type { SampleLayer } from "../block/sample-layer.ts";
import { SimFiles } from "../block/sim-files.ts";
import type { Owner, Scheduler } from "./scheduler.ts";
import type { SimDisk } from "./sim-disk.ts";
import type { SimKeeperProcess } from "./sim-keeper-process.ts";

const SIGNAL = { signal: new AbortController().signal };

export interface SimMachine {
  readonly scheduler: Scheduler;
  readonly disk: SimDisk;
  readonly keeper: SimKeeperProcess;
  readonly samples: readonly SampleLayer[];
  readonly options: Partial<DiskCacheOptions>;
  readonly bootId: string;
}

export class SimImageService {
  readonly owner: Owner = { isDead: false };
  readonly files: SimFiles;
  readonly #machine: SimMachine;
  readonly #layers = new Map<string, CachedLayer>();
  #cache: DiskCache | undefined;
  #client: KeeperClient | undefined;
  #hangUp: () => void = () => undefined;
  #die: () => void = () => undefined;
  readonly died = new Promise<false>((resolve) => {
    this.#die = () => {
      resolve(false);
    };
  });

  constructor(machine: SimMachine) {
    this.#machine = machine;
    this.files = new SimFiles(machine.disk, () => machine.scheduler.turn(this.owner));
  }

  get cache(): DiskCache {
    if (this.#cache === undefined) throw new Error("the cache is not open");
    return this.#cache;
  }

  layer(sample: SampleLayer): CachedLayer | undefined {
    return this.#layers.get(sample.id);
  }

  /** Opens the cache while the keeper, which may know of an earlier life, is being reached. */
  async start(): Promise<void> {
    const { scheduler, keeper, samples, options, bootId } = this.#machine;
    const clock = scheduler.clock(this.owner);
    const client = new KeeperClient({
      socketPath: "",
      clock,
      log: silentLogger,
      readWaitMs: 10 * 60_000,
      onFetch: (layerId, range) => this.#fetch(layerId, range),
      onTouched: (layerId, ranges) => this.#layers.get(layerId)?.touched(ranges),
      connect: async (_path, handlers: Handlers) => {
        await scheduler.turn(this.owner);
        const { connection, close } = keeper.accept(this.owner, handlers);
        this.#hangUp = close;
        return connection;
      },
    });
    this.#client = client;
    this.#cache = await DiskCache.open(
      ROOT,
      {
        clock,
        logger: silentLogger,
        files: this.files,
        bootId,
        drop: (layerId, ranges, wait) => client.drop(layerId, ranges, wait),
      },
      options,
    );
    for (const sample of samples) await this.serve(sample);
  }

  /** Opens the layer and has the keeper serve it: what mounting its chain does. */
  async serve(sample: SampleLayer): Promise<void> {
    const layer = await this.cache.layer(sample.id, sample.table);
    this.#layers.set(sample.id, layer);
    const served = {
      layerId: sample.id,
      tarBytes: sample.table.tarBytes,
      decodedPath: layer.decodedPath,
      present: () => layer.presentRanges(),
      mountpoint: "",
    };
    await this.#client?.serveLayer(served, SIGNAL);
  }

  async write(sample: SampleLayer, index: number): Promise<boolean> {
    return (await this.layer(sample)?.write(index, tarOf(sample, index))) ?? false;
  }

  async writeBlob(sample: SampleLayer, index: number): Promise<void> {
    const { blobOffset, blobLength } = sample.table.at(index);
    const blob = sample.blob.subarray(blobOffset, blobOffset + blobLength);
    await this.layer(sample)?.blobs?.write(index, blob);
  }

  /** What `ImageService.fetch` tells beyond what was asked for. */
  tellPresent(sample: SampleLayer): void {
    const layer = this.layer(sample);
    if (layer !== undefined) this.#client?.present(sample.id, layer.presentRanges());
  }

  /** The keeper's connection breaks; both sides live. */
  hangUp(): void {
    this.#hangUp();
  }

  /** kill -9: system calls that have begun may end, nothing else happens. */
  kill(): void {
    this.owner.isDead = true;
    this.#die();
    this.#hangUp();
  }

  async stop(): Promise<void> {
    await this.cache[Symbol.asyncDispose]();
    this.kill();
  }

  /** As `BlockResolver.ensure` and `ImageService.fetch`, with a source that always answers. */
  async #fetch(layerId: string, range: ByteRange): Promise<FetchReply> {
    const sample = this.#machine.samples.find(({ id }) => id === layerId);
    const layer = this.#layers.get(layerId);
    if (sample === undefined || layer === undefined) throw new Error("no such layer");
    const { table } = layer;
    const { first, last } = table.span(range);
    for (let index = first; index <= last; index += 1) {
      if (layer.has(index)) continue;
      if (layer.isDoubtful(index) && (await layer.confirm(index, SIGNAL))) continue;
      await this.#machine.scheduler.turn(this.owner); // the registry
      await layer.write(index, tarOf(sample, index));
    }
    if (!layer.hold(first, last)) return { data: sample.tar.subarray(range.start, range.end) };
    this.tellPresent(sample);
    const end = last + 1 === table.count ? table.tarBytes : table.tarOffsetOf(last + 1);
    return { present: [{ start: table.tarOffsetOf(first), end }] };
  }
}
