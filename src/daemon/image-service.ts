/**
 * The image service: everything on the read path. Makes images mountable, mounts chains through
 * rootfs, answers the keeper's fetches, fills the cache in the background.
 */
import { throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { errorCode, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { ByteRange } from "../base/range-set.ts";
import { FETCH_PRIORITY } from "../block/index.ts";
import type { BlockResolver } from "../block/index.ts";
import { fillLayers } from "../cache/index.ts";
import type { CachedLayer, DiskCache, FillProgress, FillResult } from "../cache/index.ts";
import { digestHex, parseDiffId } from "../oci/index.ts";
import type { ChainId, Digest } from "../oci/index.ts";
import type { FetchReply, KeeperClient, MountedPath, Rootfs } from "../rootfs/index.ts";
import type { BackgroundFill } from "./background-fill.ts";
import type { ChainStore } from "./chain-store.ts";
import { FailedReads } from "./failed-reads.ts";
import type { EnsureImageRequest, EnsureProgress, ImageEnsurer } from "./ensure-image.ts";
import { layersWithChains } from "./image-store.ts";
import type { ImageRecord, ImageStore, LayerRecord } from "./image-store.ts";
import type { LayerStore } from "./layer-store.ts";
import type { PeerSide } from "./peers/peer-side.ts";
import { SharedWork } from "./shared-work.ts";

/** Present ranges told to the keeper with the answer to a miss. */
const PRESENT_AHEAD_MAX = 16;

interface SignalOption {
  readonly signal: AbortSignal;
}

export interface ImageServiceParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly images: ImageStore;
  readonly layers: LayerStore;
  readonly chains: ChainStore;
  readonly ensurer: ImageEnsurer;
  readonly cache: DiskCache;
  readonly resolver: BlockResolver;
  readonly keeper: KeeperClient;
  readonly rootfs: Rootfs;
  readonly background: BackgroundFill | undefined;
  /** Undefined: a node alone. */
  readonly peers: PeerSide | undefined;
  /** Why there are none, where `[peer]` wants some. */
  readonly peersFailure: string | undefined;
  /** How long a wanted fill waits for one window of blocks. */
  readonly fillLimitMs: number;
  /** Aborted when the service ends: what outlives its callers. */
  readonly stop: AbortSignal;
}

/** A layer of a chain, with what it may cost here at most. */
export interface EnsuredLayer extends LayerRecord {
  readonly chainId: ChainId;
  readonly tarBytes: number;
  readonly usageBytes: number;
  readonly usageInodes: number;
}

export class ImageService {
  readonly parts: ImageServiceParts;
  readonly #fills = new SharedWork<Digest, FillProgress, FillResult>();

  readonly #failedReads: FailedReads;

  constructor(parts: ImageServiceParts) {
    this.parts = parts;
    this.#failedReads = new FailedReads(parts.clock);
  }

  async ensure(
    request: EnsureImageRequest,
    options: SignalOption & { readonly onProgress?: (progress: EnsureProgress) => void },
  ): Promise<{ readonly image: ImageRecord; readonly layers: readonly EnsuredLayer[] }> {
    const image = await this.parts.ensurer.ensure(request, options);
    return { image, layers: await this.#describe(image.layers) };
  }

  /** The chain's layers when all of them have maps, else undefined. Asks nobody. */
  async knows(chainId: ChainId): Promise<readonly EnsuredLayer[] | undefined> {
    const layers = this.parts.images.chain(chainId);
    if (layers?.every((layer) => this.parts.layers.has(layer.diffId)) !== true) return undefined;
    return this.#describe(layers);
  }

  async #describe(layers: readonly LayerRecord[]): Promise<EnsuredLayer[]> {
    return Promise.all(
      layersWithChains(layers).map(async (layer) => {
        const { map } = await this.parts.layers.openLayer(layer.diffId);
        const usageBytes = map.info.tarBytes + map.sizes.fileBytes;
        const usageInodes = map.info.entries;
        return { ...layer, tarBytes: map.info.tarBytes, usageBytes, usageInodes };
      }),
    );
  }

  /** Mounts a chain, without asking a registry. `target` undefined: the daemon's own place. */
  async mount(
    chainId: ChainId,
    options: SignalOption & { readonly target?: string | undefined },
  ): Promise<MountedPath> {
    const layers = this.parts.chains.layersOf(chainId);
    // A claim outlives a damaged map: containerd never fetches the layer again.
    await this.parts.ensurer.remakeMaps(layers, options);
    const [metadataPath, open] = await Promise.all([
      this.parts.chains.metadata(chainId, options),
      Promise.all(layers.map((layer) => this.parts.layers.openLayer(layer.diffId))),
    ]);
    throwIfAborted(options.signal);
    const mounted = await this.parts.rootfs.mountChain(
      {
        chainId: digestHex(chainId),
        metadataPath,
        layers: open.map(({ map, cached }) => ({
          layerId: cached.id,
          tarBytes: map.info.tarBytes,
          decodedPath: cached.decodedPath,
          present: () => cached.presentRanges(),
        })),
        target: options.target,
      },
      options,
    );
    const image = this.parts.images.imageOfChain(chainId);
    if (image !== undefined) this.parts.peers?.images.use(image);
    this.parts.background?.chainMounted(layers.map((layer) => layer.diffId));
    return mounted;
  }

  /** False when containers still use the mount: it then stays until the next try. */
  async release(
    chainId: ChainId,
    options: SignalOption & { readonly target?: string | undefined },
  ): Promise<boolean> {
    return this.parts.rootfs.releaseChain(digestHex(chainId), options);
  }

  /** Unmounts every chain of ours that is not among `chainIdsInUse`. */
  async retain(chainIdsInUse: readonly ChainId[], options: SignalOption): Promise<void> {
    const kept = new Set(chainIdsInUse.map(digestHex));
    for (const { chainId } of this.parts.rootfs.chains) {
      if (!kept.has(chainId)) await this.parts.rootfs.releaseChain(chainId, options);
    }
  }

  /**
   * The keeper's misses. `deadline-exceeded` once the read limit is reached: the keeper then
   * answers EIO; every other retryable code makes it ask again.
   */
  async fetch(layerId: string, range: ByteRange, options: SignalOption): Promise<FetchReply> {
    const { cached } = await this.parts.layers.openLayer(parseDiffId(`sha256:${layerId}`));
    const block = cached.table.find(Math.min(range.start, cached.table.tarBytes - 1));
    const failed = cached.has(block) ? undefined : this.#failedReads.repeated(layerId, block);
    if (failed !== undefined) throw failed;
    try {
      const wait = { priority: FETCH_PRIORITY.reader, signal: options.signal };
      const reply = await this.parts.resolver.ensure(layerId, range, wait);
      this.#tellPresent(cached, range);
      return reply;
    } catch (error) {
      if (errorCode(error) === "canceled") throw error;
      this.parts.log.error("read-failed", { layer: layerId, ...range, err: error });
      if (errorCode(error) !== "unavailable") throw error;
      const reason = withContext(error, "the read limit is reached", "deadline-exceeded");
      this.#failedReads.note(layerId, block, reason);
      throw reason;
    }
  }

  /**
   * What was fetched ahead or filled since the last miss, so that it is no miss too. Read and told
   * in one go: an eviction that follows is told after it, on the same connection.
   */
  #tellPresent(cached: CachedLayer, range: ByteRange): void {
    const ahead = cached.presentRanges().filter((one) => one.end > range.start);
    this.parts.keeper.present(cached.id, ahead.slice(0, PRESENT_AHEAD_MAX));
  }

  touched(layerId: string, ranges: readonly ByteRange[]): void {
    this.parts.cache.get(layerId)?.touched(ranges);
  }

  /** Brings every block of the image into the cache; goes on when the caller leaves. */
  async fill(
    image: ImageRecord,
    options: SignalOption & { readonly onProgress: (progress: FillProgress) => void },
  ): Promise<FillResult> {
    return this.#fills.run(
      image.manifestDigest,
      async (onProgress) => {
        const open = await Promise.all(
          image.layers.map((layer) => this.parts.layers.openLayer(layer.diffId)),
        );
        const unique = [...new Set(open.map(({ cached }) => cached))];
        return fillLayers(this.parts, unique, {
          signal: this.parts.stop,
          onProgress,
          rateBytesPerSecond: 0,
          mayEvict: true,
          limitMs: this.parts.fillLimitMs,
        });
      },
      options,
    );
  }

  async clearCache(options: SignalOption): Promise<{ bytes: number; blocks: number }> {
    await this.parts.background?.cancel();
    this.parts.resolver.clearMemory();
    return this.parts.cache.clear(options);
  }

  /** Unmounts what no container uses; answers how many mounts remain. */
  async unmountUnused(options: SignalOption): Promise<number> {
    return this.parts.rootfs.unmountAll({ ...options, unusedOnly: true });
  }
}
