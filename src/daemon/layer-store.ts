/**
 * The layers of this node: which have a map, and those that are open: map, cached blocks and the
 * read path joined. A layer is opened when it is first mounted or read, and stays open.
 */
import { readdir, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { raceAbort } from "../base/abort.ts";
import { errorCode, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { SingleFlight } from "../base/single-flight.ts";
import type { BlockLayer, BlockResolver, BlockSource, BlockTable } from "../block/index.ts";
import type { CachedLayer, CacheFill, DiskCache, KeptBytes } from "../cache/index.ts";
import { openLayerMap, unfinishedMapPath } from "../image/index.ts";
import type { LayerMap } from "../image/index.ts";
import { digestHex, parseDiffId } from "../oci/index.ts";
import type { DiffId, Digest } from "../oci/index.ts";
import type { RegistryOptions } from "../registry/index.ts";
import { runJob } from "./child-job.ts";
import type { LayerMapMaker } from "./ensure-image.ts";
import type { ImageSources } from "./image-sources.ts";
import type { ImageStore, LayerRecord } from "./image-store.ts";
import { layerJobResultSchema } from "./job-types.ts";
import type { LayerJob } from "./job-types.ts";
import { layerMapPath } from "./paths.ts";
import type { RootPaths } from "./paths.ts";

export interface OpenLayer {
  readonly map: LayerMap;
  readonly cached: CachedLayer;
}

export interface LayerStoreParts {
  readonly paths: RootPaths;
  readonly cache: DiskCache;
  readonly resolver: BlockResolver;
  readonly images: ImageStore;
  readonly sources: ImageSources;
  readonly registry: RegistryOptions;
  /** Undefined: a node alone. */
  readonly peers?: LayerPeers | undefined;
  readonly log: Logger;
}

/** What other nodes do for a layer. */
export interface LayerPeers {
  /** Once for each layer: what turns its own sources into those to ask before and instead. */
  around(layer: {
    readonly id: string;
    readonly blobDigest: Digest;
    readonly table: BlockTable;
  }): (own: readonly BlockSource[]) => readonly BlockSource[];
  /** True: the map is at `mapPath`. False: it is to be made here. */
  fetchMap(
    image: Digest,
    layer: LayerRecord,
    options: { readonly mapPath: string; readonly signal: AbortSignal },
  ): Promise<boolean>;
}

export class LayerStore implements LayerMapMaker, AsyncDisposable {
  readonly #parts: LayerStoreParts;
  /** Layers with a map on disk. */
  readonly #known: Set<DiffId>;
  readonly #open = new Map<DiffId, OpenLayer>();
  readonly #opening = new SingleFlight<DiffId, OpenLayer>();
  #waiting: (() => void)[] = [];
  readonly #stop = new AbortController();

  private constructor(parts: LayerStoreParts, known: Set<DiffId>) {
    this.#parts = parts;
    this.#known = known;
  }

  static async open(parts: LayerStoreParts): Promise<LayerStore> {
    const known = new Set<DiffId>();
    for (const name of await readdir(parts.paths.layers)) {
      const hex = /^([0-9a-f]{64})\.map$/.exec(name)?.[1];
      if (hex !== undefined) known.add(parseDiffId(`sha256:${hex}`));
      else await unlink(join(parts.paths.layers, name)); // half-written by a job that died
    }
    return new LayerStore(parts, known);
  }

  has(diffId: DiffId): boolean {
    return this.#known.has(diffId);
  }

  /** Blocks of a layer; 0 while it is not open. */
  blocksOf(diffId: DiffId): number {
    return this.#open.get(diffId)?.map.blockTable.count ?? 0;
  }

  mapPath(diffId: DiffId): string {
    return layerMapPath(this.#parts.paths, diffId);
  }

  /** Resolves when there is a map of the layer. */
  async whenKnown(diffId: DiffId, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    while (!this.#known.has(diffId)) {
      await raceAbort(new Promise<void>((resolve) => this.#waiting.push(resolve)), signal);
    }
  }

  #learn(diffId: DiffId): void {
    this.#known.add(diffId);
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }

  /**
   * From another node, where there is one that has it or makes it; false: it is to be made here.
   */
  async fetch(
    image: Digest,
    layer: LayerRecord,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<boolean> {
    const { peers } = this.#parts;
    if (peers === undefined) return false;
    const mapPath = this.mapPath(layer.diffId);
    if (!(await peers.fetchMap(image, layer, { mapPath, signal }))) return false;
    this.#learn(layer.diffId);
    return true;
  }

  /** A map that proves damaged is forgotten, so that the next pull makes it anew. */
  async openLayer(diffId: DiffId): Promise<OpenLayer> {
    const known = this.#open.get(diffId);
    if (known !== undefined) return known;
    const signal = this.#stop.signal;
    return this.#opening.run(diffId, () => this.#openLayer(diffId), {
      signal,
      detached: true,
    });
  }

  async #openLayer(diffId: DiffId): Promise<OpenLayer> {
    const { paths, cache, resolver, images, sources, peers } = this.#parts;
    const path = layerMapPath(paths, diffId);
    let map: LayerMap;
    try {
      map = await openLayerMap(path, { diffId });
    } catch (error) {
      await this.#forget(diffId, error);
      throw error;
    }
    const id = digestHex(diffId);
    const blobDigest = map.info.blobDigest;
    const cached = await cache.layer(id, map.blockTable);
    const around = peers?.around({ id, blobDigest, table: map.blockTable });
    const layer: BlockLayer = {
      id,
      blobDigest,
      blobBytes: map.info.blobBytes,
      table: map.blockTable,
      readWindow: (block) => map.readWindow(block),
      sources: () => {
        const own = sources.blockSources(images.sourcesOf(blobDigest));
        return around?.(own) ?? own;
      },
    };
    if (!resolver.hasLayer(id)) resolver.addLayer(layer, cached);
    const open = { map, cached };
    this.#open.set(diffId, open);
    return open;
  }

  async #forget(diffId: DiffId, error: unknown): Promise<void> {
    this.#parts.log.error("layer-map-damaged", { diffId, err: error });
    this.#known.delete(diffId);
    await rm(layerMapPath(this.#parts.paths, diffId), { force: true });
  }

  async forgetDamaged(layers: readonly LayerRecord[]): Promise<boolean> {
    let isAnyDamaged = false;
    for (const { diffId } of layers) {
      try {
        await using map = await openLayerMap(layerMapPath(this.#parts.paths, diffId), { diffId });
        await map.verify();
      } catch (error) {
        if (errorCode(error) !== "data-loss") throw error;
        await this.#forget(diffId, error);
        isAnyDamaged = true;
      }
    }
    return isAnyDamaged;
  }

  /** Makes the map in a job process, which also fills the cache with what it decodes. */
  async make(
    layer: LayerRecord,
    sources: readonly string[],
    options: {
      readonly signal: AbortSignal;
      readonly onProgress: (blobBytes: number) => void;
    },
  ): Promise<void> {
    const { paths, cache, registry, log } = this.#parts;
    const id = digestHex(layer.diffId);
    const isCompressed = /gzip|zstd/.test(layer.mediaType);
    const fill = await cache.beginFill(id, { blobBytes: layer.blobBytes, isCompressed });
    try {
      const job: LayerJob = {
        kind: "layer",
        sources,
        registry,
        digest: layer.blobDigest,
        size: layer.blobBytes,
        mediaType: layer.mediaType,
        diffId: layer.diffId,
        mapPath: layerMapPath(paths, layer.diffId),
        fill: fill?.plan,
      };
      const result = layerJobResultSchema.parse(
        await runJob(job, { signal: options.signal, onProgress: options.onProgress }),
      );
      this.#learn(layer.diffId);
      log.info("layer-map-made", { ...layer, keptBytes: result.keptBytes, source: result.source });
      await this.#adopt(layer.diffId, fill, result);
    } catch (error) {
      // A job that was killed could not.
      await rm(unfinishedMapPath(layerMapPath(paths, layer.diffId)), { force: true });
      // It then could not say either what it was at.
      if (errorCode(error) !== "internal") throw error;
      throw withContext(error, `cannot map layer ${layer.blobDigest}`);
    } finally {
      await fill?.[Symbol.asyncDispose]();
    }
  }

  async #adopt(diffId: DiffId, fill: CacheFill | undefined, kept: KeptBytes): Promise<void> {
    if (fill === undefined || kept.keptBytes === 0) return;
    await using map = await openLayerMap(layerMapPath(this.#parts.paths, diffId), { diffId });
    const { cache, log } = this.#parts;
    try {
      await cache.adoptFilled(fill, digestHex(diffId), map.blockTable, kept);
    } catch (error) {
      log.warn("fill-not-kept", { diffId, err: error }); // the map stands; blocks come again
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const [diffId, { map }] of this.#open) {
      this.#parts.resolver.removeLayer(digestHex(diffId));
      await map[Symbol.asyncDispose]();
    }
    this.#open.clear();
  }
}
