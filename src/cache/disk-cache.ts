/**
 * The disk cache: per layer one sparse file of decoded tar bytes and (optionally) one of blob
 * bytes, each with a presence bitmap, all under one byte quota. docs/formats/cache.md describes
 * the files and which of them can be believed when.
 */
import type { Clock } from "../base/clock.ts";
import { DaemonError, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { BlockTable } from "../block/index.ts";
import type { BlockFile } from "./block-file.ts";
import { CachedBlobs } from "./cached-blobs.ts";
import { CachedLayer } from "./cached-layer.ts";
import { summarize } from "./cache-summary.ts";
import type { CachedLayerSummary } from "./cache-summary.ts";
import { CacheFill, copyBlobFill, copyFill, moveBlobFill, moveFill } from "./cache-fill.ts";
import type { FillEstimate, Filled, KeptBytes } from "./cache-fill.ts";
import type { CacheFiles } from "./cache-files.ts";
import { CacheFolders, isLayerId } from "./cache-folders.ts";
import { CacheQuota } from "./cache-quota.ts";
import type { DropRanges, QuotaCounts } from "./cache-quota.ts";
import { Flusher } from "./flusher.ts";
import {
  CLEAR_ROUNDS_MAX,
  FLUSH_DELAY_MS,
  HOLD_MS,
  LAYER_BLOCKS_MAX,
  ORPHAN_SLACK_BYTES,
  USE_TIME_AGE_MS,
} from "./limits.ts";
import { openBlockFile } from "./open-block-file.ts";
import { OrphanSweeper } from "./orphan-sweeper.ts";
import type { StoreKind } from "./presence-file.ts";
import { readSession, writeSession } from "./session-file.ts";

export interface DiskCacheOptions {
  /** Bytes of both stores together. */
  readonly quotaBytes: number;
  /** Bytes of the file system that are left to others. */
  readonly reserveBytes: number;
  /** Whether blob bytes are kept as fetched (what children will ask for). */
  readonly blobs: "on" | "off";
  /** How long a reader may take to let go of ranges before they are kept after all. */
  readonly dropLimitMs: number;
  readonly flushDelayMs: number;
  /** Bytes on disk beyond its known blocks that a layer's file may have before it is swept. */
  readonly orphanSlackBytes: number;
}

export const DEFAULT_DISK_CACHE_OPTIONS: DiskCacheOptions = {
  quotaBytes: 10 * 1024 ** 3,
  reserveBytes: 1024 ** 3,
  blobs: "off",
  dropLimitMs: 10_000,
  flushDelayMs: FLUSH_DELAY_MS,
  orphanSlackBytes: ORPHAN_SLACK_BYTES,
};

export interface DiskCacheDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly files: CacheFiles;
  /** `readBootId()`. */
  readonly bootId: string;
  readonly drop: DropRanges;
}

export interface CacheUsage {
  readonly quotaBytes: number;
  readonly usedBytes: number;
  readonly decodedBytes: number;
  readonly blobBytes: number;
  /** Reserved for passes that are filling a layer. */
  readonly fillBytes: number;
  /** What can be written without evicting anything. */
  readonly roomBytes: number;
  readonly counts: QuotaCounts;
}

interface OpenedFile {
  readonly file: BlockFile;
  readonly slot: number;
}

export class DiskCache implements AsyncDisposable {
  readonly #root: string;
  readonly #dependencies: DiskCacheDependencies;
  readonly #options: DiskCacheOptions;
  readonly #quota: CacheQuota;
  readonly #folders: CacheFolders;
  readonly #sweeper: OrphanSweeper;
  readonly #layers = new Map<string, CachedLayer>();
  readonly #opening = new Map<string, Promise<CachedLayer>>();
  readonly #owned = new Map<string, { files: AsyncDisposable[]; slots: number[] }>();
  readonly #doubtful: ReadonlySet<string>;
  readonly #flusher: Flusher;
  #useTimesAtMs: number;
  #fillNumber: number;
  #disposed: Promise<void> | undefined;

  private constructor(
    root: string,
    dependencies: DiskCacheDependencies,
    options: DiskCacheOptions,
    doubtful: ReadonlySet<string>,
  ) {
    this.#root = root;
    this.#dependencies = dependencies;
    this.#options = options;
    this.#doubtful = doubtful;
    const { clock, logger, drop, files } = dependencies;
    this.#quota = new CacheQuota(
      { clock, logger, drop, freeBytes: () => files.freeBytes(root) },
      options,
    );
    this.#folders = new CacheFolders(files, root, this.#quota);
    this.#sweeper = new OrphanSweeper({ clock, logger, quota: this.#quota }, options);
    this.#flusher = new Flusher({
      clock,
      logger,
      quota: this.#quota,
      delayMs: options.flushDelayMs,
      files: () => this.#openFiles(),
      onFlushed: () => this.#writeUseTimesNowAndThen(),
    });
    this.#useTimesAtMs = clock.nowMs();
    // Not that of an earlier session, whose last job may still be about to open its file.
    this.#fillNumber = Number(clock.wallNs() / 1_000_000n);
  }

  /**
   * Opens the cache under `root`; one process at a time (the caller holds the lock). Fails with
   * `failed-precondition` where the file system cannot punch holes.
   */
  static async open(
    root: string,
    dependencies: DiskCacheDependencies,
    options: Partial<DiskCacheOptions> = {},
  ): Promise<DiskCache> {
    const { files, bootId, logger } = dependencies;
    const all = { ...DEFAULT_DISK_CACHE_OPTIONS, ...options };
    await CacheFolders.make(files, root);
    const { doubtful } = await readSession(files, root, bootId);
    const known = await CacheFolders.layerIds(files, root);
    const doubted = doubtful === "all" ? known : new Set(known.filter((id) => doubtful.has(id)));
    const session = { state: "open" as const, bootId, doubtful: new Set(doubted) };
    await writeSession(files, root, session);
    const cache = new DiskCache(root, dependencies, all, session.doubtful);
    await cache.#folders.scan();
    if (session.doubtful.size > 0) {
      logger.warn("cache-doubted", { layers: session.doubtful.size });
    }
    return cache;
  }

  /**
   * The layer's handle; files are made when missing. The same table every time while it is open
   * (`failed-precondition`); another one after a restart empties the layer.
   */
  async layer(layerId: string, table: BlockTable): Promise<CachedLayer> {
    this.#assertOpen();
    const layer =
      this.#layers.get(layerId) ??
      (await this.#opened(layerId, () => this.#openLayer(layerId, table)));
    if (!Buffer.from(layer.table.bytes).equals(table.bytes)) {
      const text = `layer ${layerId} is open with another block table`;
      throw new DaemonError("failed-precondition", text);
    }
    return layer;
  }

  /** An open layer. */
  get(layerId: string): CachedLayer | undefined {
    return this.#layers.get(layerId);
  }

  /** Where the decoded bytes of a layer are; the file exists once the layer was opened. */
  decodedPath(layerId: string): string {
    return this.#folders.dataPath("decoded", layerId);
  }

  usage(): CacheUsage {
    const { decoded, blobs, fills, blobFills } = this.#quota.used;
    return {
      quotaBytes: this.#quota.quotaBytes,
      usedBytes: this.#quota.usedBytes,
      decodedBytes: decoded,
      blobBytes: blobs,
      fillBytes: fills + blobFills,
      roomBytes: this.#quota.roomBytes,
      counts: this.#quota.counts,
    };
  }

  /** Layers with bytes in the cache, open or not, by ID. */
  list(): CachedLayerSummary[] {
    return summarize(this.#layers, this.#quota.dormant);
  }

  /**
   * Drops the cached blocks of every layer; layers stay open and readable. Blocks that a reader
   * was just told of, or that are being read, are waited for a few seconds, then kept.
   */
  async clear(options: {
    readonly signal: AbortSignal;
  }): Promise<{ readonly bytes: number; readonly blocks: number }> {
    const before = this.#quota.counts;
    for (const dormant of [...this.#quota.dormant]) await this.#quota.evictDormant(dormant);
    for (let round = 0; round < CLEAR_ROUNDS_MAX; round += 1) {
      const files = this.#openFiles();
      const done = await Promise.all(
        files.map(({ slot }) => this.#quota.evictBlocks(slot, this.#quota.evictable(slot))),
      );
      if (done.includes(false)) {
        throw new DaemonError("unavailable", "readers did not let go of all cached blocks");
      }
      if (files.every(({ file }) => file.kept().next().done === true)) break;
      if (round + 1 < CLEAR_ROUNDS_MAX) await this.#dependencies.clock.sleep(HOLD_MS, options);
    }
    const after = this.#quota.counts;
    return {
      bytes: after.evictedBytes - before.evictedBytes,
      blocks: after.evictedBlocks - before.evictedBlocks,
    };
  }

  /** Deletes a layer's files. Nobody may read the layer any more. */
  async removeLayer(layerId: string): Promise<void> {
    this.#assertOpen();
    await this.#opening.get(layerId)?.catch(() => undefined);
    const layer = this.#layers.get(layerId);
    if (layer !== undefined) {
      layer.isClosed = true;
      await layer.file.allIdle();
      await layer.blobs?.file.allIdle();
      this.#layers.delete(layerId);
      await this.#closeFiles(layerId);
    }
    await this.#folders.remove(layerId);
  }

  /** Brings usage below the quota; call it once the readers can be told to drop. */
  async trim(): Promise<void> {
    await this.#quota.trim();
  }

  /** Evicts when the file system has less room than is left to others. */
  async giveWay(): Promise<void> {
    await this.#quota.giveWay();
  }

  /** Verifies every doubtful block of the open layers, one after another. */
  async confirmAll(options: { readonly signal: AbortSignal }): Promise<void> {
    for (const layer of this.#layers.values()) {
      for (const index of [...layer.file.kept()]) {
        if (layer.isDoubtful(index)) await layer.confirm(index, options);
      }
    }
  }

  /**
   * Plans a filling pass over a layer: where the child writes, and how much. Undefined when there
   * is no room. `adopt` or dispose the result.
   */
  async beginFill(layerId: string, estimate: FillEstimate): Promise<CacheFill | undefined> {
    this.#assertOpen();
    this.#fillNumber += 1;
    const isKept = this.#options.blobs === "on";
    return CacheFill.begin(this.#quota, this.#dependencies.files, {
      path: this.#folders.fillPath("decoded", layerId, this.#fillNumber),
      blobPath: isKept ? this.#folders.fillPath("blobs", layerId, this.#fillNumber) : undefined,
      estimate,
    });
  }

  /**
   * Takes over what a pass wrote: all blocks within the first `keptBytes` of the tar stream, and
   * those within the first `keptBlobBytes` of the blob, are present. The pass has proved the
   * digests. Blocks of a layer that is already in the cache are copied.
   */
  async adoptFilled(
    fill: CacheFill,
    layerId: string,
    table: BlockTable,
    kept: KeptBytes,
  ): Promise<CachedLayer> {
    this.#assertOpen();
    const { files, logger } = this.#dependencies;
    const filled = { fill, table, ...kept };
    try {
      const known = this.#layers.get(layerId) ?? this.#opening.get(layerId);
      // Whoever wants the layer from now on waits: it must not open a file that is then replaced.
      const layer = await (known ??
        this.#opened(layerId, async () => this.#openLayer(layerId, table, filled)));
      await copyFill(files, filled, layer);
      await copyBlobFill(files, filled, layer);
      this.#flusher.schedule();
      return layer;
    } catch (error) {
      logger.warn("fill-not-adopted", { layer: layerId, err: error });
      throw withContext(error, `filling pass of layer ${layerId} cannot be adopted`);
    } finally {
      await fill[Symbol.asyncDispose]();
    }
  }

  /** A pass's file becomes the layer's, where it has none; the result is the blocks it holds. */
  async #moved(kind: StoreKind, filled: Filled, layerId: string): Promise<readonly number[]> {
    const { files } = this.#dependencies;
    const path = this.#folders.dataPath(kind, layerId);
    if ((await files.stat(path)) !== undefined) return [];
    if (kind === "blobs" && (filled.keptBlobBytes ?? 0) === 0) return [];
    await this.#folders.removePresence(kind, layerId);
    const move = kind === "decoded" ? moveFill : moveBlobFill;
    const blocks = await move(files, filled, path);
    await this.#folders.sync(kind);
    if (kind === "decoded") filled.fill.release();
    else filled.fill.releaseBlob();
    return blocks;
  }

  /** Makes what was written so far survive a crash. */
  async flush(): Promise<void> {
    await this.#flusher.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= this.#dispose();
    await this.#disposed;
  }

  #assertOpen(): void {
    if (this.#disposed !== undefined) {
      throw new DaemonError("failed-precondition", "the cache is closed");
    }
  }

  /** Joins an opening under way, else begins one. */
  async #opened(layerId: string, open: () => Promise<CachedLayer>): Promise<CachedLayer> {
    const known = this.#opening.get(layerId);
    if (known !== undefined) return known;
    const opening = open().finally(() => {
      this.#opening.delete(layerId);
    });
    this.#opening.set(layerId, opening);
    return opening;
  }

  /** With `filled`, the files of a pass become the layer's where it has none. */
  async #openLayer(layerId: string, table: BlockTable, filled?: Filled): Promise<CachedLayer> {
    if (!isLayerId(layerId)) {
      throw new DaemonError("invalid-argument", `not a layer ID: ${layerId.slice(0, 80)}`);
    }
    if (table.count > LAYER_BLOCKS_MAX) {
      throw new DaemonError("resource-exhausted", `layer ${layerId} has ${table.count} blocks`);
    }
    const { logger } = this.#dependencies;
    const onWritten = (): void => {
      this.#flusher.schedule();
    };
    const context = { quota: this.#quota, logger, onWritten };
    try {
      const open = async (kind: StoreKind): Promise<OpenedFile> => {
        const adopted = filled === undefined ? [] : await this.#moved(kind, filled, layerId);
        return this.#openFile(kind, { layerId, table, adopted });
      };
      const decoded = await open("decoded");
      const blobs = this.#options.blobs === "on" ? await open("blobs") : undefined;
      const layer = new CachedLayer(
        {
          id: layerId,
          table,
          decodedPath: this.decodedPath(layerId),
          ...decoded,
          blobs: blobs === undefined ? undefined : new CachedBlobs({ ...blobs, table }, context),
        },
        context,
      );
      this.#layers.set(layerId, layer);
      return layer;
    } catch (error) {
      await this.#closeFiles(layerId);
      throw withContext(error, `cache files of layer ${layerId} cannot be opened`);
    }
  }

  async #openFile(
    kind: StoreKind,
    layer: {
      readonly layerId: string;
      readonly table: BlockTable;
      /** Blocks whose bytes a pass has written. */
      readonly adopted: readonly number[];
    },
  ): Promise<OpenedFile> {
    const { layerId, table, adopted } = layer;
    const useTimeMs = await this.#folders.wake(kind, layerId);
    const owned = this.#owned.get(layerId) ?? { files: [], slots: [] };
    this.#owned.set(layerId, owned);
    const { file, allocatedBytes } = await openBlockFile(
      this.#dependencies.files,
      {
        kind,
        table,
        dataPath: this.#folders.dataPath(kind, layerId),
        presencePath: this.#folders.presencePath(kind, layerId),
        isDoubtful: this.#doubtful.has(layerId),
      },
      owned.files,
    );
    await this.#folders.sync(kind);
    for (const index of adopted) file.markWritten(index);
    const slot = this.#quota.admit({ kind, layerId, file, useTimeMs });
    owned.slots.push(slot);
    for (const index of adopted) this.#quota.touched(slot, index, false);
    this.#sweeper.consider({ kind, layerId, file, slot }, allocatedBytes);
    return { file, slot };
  }

  #openFiles(): (CachedLayer | CachedBlobs)[] {
    return [...this.#layers.values()].flatMap((layer) =>
      layer.blobs === undefined ? [layer] : [layer.blobs, layer],
    );
  }

  async #writeUseTimesNowAndThen(): Promise<void> {
    const nowMs = this.#dependencies.clock.nowMs();
    if (nowMs - this.#useTimesAtMs < USE_TIME_AGE_MS) return;
    this.#useTimesAtMs = nowMs;
    await this.#writeUseTimes();
  }

  async #writeUseTimes(): Promise<void> {
    const nowMs = Number(this.#dependencies.clock.wallNs() / 1_000_000n);
    for (const layer of this.#layers.values()) {
      if (!layer.isUsed) continue;
      layer.isUsed = false;
      await layer.file.setUseTime(nowMs);
      await layer.blobs?.file.setUseTime(nowMs);
    }
  }

  /** The layer's files are closed and no longer counted. */
  async #closeFiles(layerId: string): Promise<void> {
    const owned = this.#owned.get(layerId);
    this.#owned.delete(layerId);
    for (const slot of owned?.slots ?? []) {
      this.#sweeper.forget(slot);
      this.#quota.dismiss(slot);
    }
    for (const file of owned?.files ?? []) await file[Symbol.asyncDispose]();
  }

  async #dispose(): Promise<void> {
    const flushed = this.#flusher.close();
    await this.#sweeper.close();
    await this.#quota.close();
    await Promise.allSettled(this.#opening.values());
    await flushed;
    const doubtful = new Set(this.#doubtful);
    try {
      for (const layer of this.#layers.values()) {
        layer.isClosed = true;
        await layer.file.allIdle();
        await layer.blobs?.file.allIdle();
        await layer.file.sync();
        await layer.blobs?.file.sync();
        const kept = [...layer.file.kept()];
        const isSure = kept.every((index) => layer.has(index));
        // Blob bytes are verified whenever they are read.
        if (isSure) doubtful.delete(layer.id);
      }
      await this.#writeUseTimes();
      const { files, bootId } = this.#dependencies;
      await writeSession(files, this.#root, { state: "clean", bootId, doubtful });
    } finally {
      for (const layerId of [...this.#owned.keys()]) await this.#closeFiles(layerId);
    }
  }
}
