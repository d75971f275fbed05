/** One layer in the cache: what the read path writes to and the keeper reads from. */
import { raceAbort } from "../base/abort.ts";
import { DaemonError, errorCode, isDiskFull, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { ByteRange } from "../base/range-set.ts";
import { hasSha256 } from "../block/index.ts";
import type { BlockTable, StoredLayer } from "../block/index.ts";
import { BLOCK_STATE } from "./block-file.ts";
import type { BlockFile } from "./block-file.ts";
import type { CachedBlobs } from "./cached-blobs.ts";
import type { CacheQuota } from "./cache-quota.ts";
import { TOUCHED_RANGES_MAX } from "./limits.ts";

export interface CachedLayerParts {
  readonly id: string;
  readonly table: BlockTable;
  /** The sparse file that the keeper preads. */
  readonly decodedPath: string;
  readonly file: BlockFile;
  readonly slot: number;
  readonly blobs: CachedBlobs | undefined;
}

export interface CachedLayerContext {
  readonly quota: CacheQuota;
  readonly logger: Logger;
  /** Something waits to be flushed. */
  readonly onWritten: () => void;
}

export class CachedLayer implements StoredLayer {
  readonly id: string;
  readonly table: BlockTable;
  readonly decodedPath: string;
  readonly file: BlockFile;
  readonly slot: number;
  readonly blobs: CachedBlobs | undefined;
  readonly #context: CachedLayerContext;
  /** Used since its time of use was last written. */
  isUsed = false;
  isClosed = false;

  constructor(parts: CachedLayerParts, context: CachedLayerContext) {
    this.id = parts.id;
    this.table = parts.table;
    this.decodedPath = parts.decodedPath;
    this.file = parts.file;
    this.slot = parts.slot;
    this.blobs = parts.blobs;
    this.#context = context;
  }

  /** Size of the data device: the tar stream padded to a multiple of 512. */
  get deviceBytes(): number {
    return Math.ceil(this.table.tarBytes / 512) * 512;
  }

  has(index: number): boolean {
    return this.file.has(index);
  }

  isDoubtful(index: number): boolean {
    return this.file.state(index) === BLOCK_STATE.doubtful;
  }

  hold(first: number, last: number): boolean {
    for (let index = first; index <= last; index += 1) {
      if (!this.file.has(index)) return false;
    }
    for (let index = first; index <= last; index += 1) {
      this.#context.quota.touched(this.slot, index, true);
    }
    this.isUsed = true;
    return true;
  }

  /** Present blocks as ranges of the data device, merged; the last one's includes the padding. */
  presentRanges(): ByteRange[] {
    const ranges: ByteRange[] = [];
    let open: { start: number; end: number } | undefined;
    for (let index = 0; index < this.table.count; index += 1) {
      if (!this.file.has(index)) {
        open = undefined;
        continue;
      }
      const start = this.table.tarOffsetOf(index);
      const isLast = index + 1 === this.table.count;
      const end = isLast ? this.deviceBytes : this.table.tarOffsetOf(index + 1);
      if (open === undefined) {
        open = { start, end };
        ranges.push(open);
      } else {
        open.end = end;
      }
    }
    return ranges;
  }

  async write(index: number, tarBytes: Uint8Array): Promise<boolean> {
    for (;;) {
      while (this.file.isBusy(index)) await this.file.idle(index);
      if (this.isClosed || this.#context.quota.isClosed) return false;
      if (this.file.has(index)) return true;
      if (!this.isDoubtful(index)) break;
      try {
        if (await this.#confirm(index)) return true;
      } catch (error) {
        this.#context.logger.warn("cache-write-failed", { layer: this.id, err: error });
        return false;
      }
    }
    const outcome = await this.file.exclusive(index, () => this.#write(index, tarBytes));
    if (outcome === "failed" && !this.file.pinned(index)) {
      // Frees what the failed write left; it logs its own failures.
      this.#context.quota.evictBlocks(this.slot, [index]).catch(() => undefined);
    }
    return outcome === "written";
  }

  async confirm(index: number, options: { readonly signal: AbortSignal }): Promise<boolean> {
    return raceAbort(this.#confirm(index), options.signal);
  }

  async read(range: ByteRange): Promise<Uint8Array> {
    const { first, last } = this.table.span(range);
    for (let index = first; index <= last; index += 1) {
      if (!this.file.has(index)) {
        throw new DaemonError("not-found", `block ${index} of layer ${this.id} is not cached`);
      }
    }
    const unpin = this.file.pin(first, last);
    try {
      return await this.file.read(range);
    } catch (error) {
      const text = `cached bytes ${range.start}-${range.end} of layer ${this.id}`;
      throw withContext(error, text, errorCode(error) === "data-loss" ? "data-loss" : "internal");
    } finally {
      unpin();
    }
  }

  /** Ranges that the keeper served: for the order of eviction. Others are ignored. */
  touched(ranges: readonly ByteRange[]): void {
    for (const range of ranges.slice(0, TOUCHED_RANGES_MAX)) {
      const start = Math.max(0, range.start);
      const end = Math.min(range.end, this.table.tarBytes);
      if (end <= start) continue;
      const { first, last } = this.table.span({ start, end });
      for (let index = first; index <= last; index += 1) {
        this.#context.quota.touched(this.slot, index, false);
      }
      this.isUsed = true;
    }
  }

  /** Blocks, and their bytes on disk, in the decoded store. */
  usage(): { readonly blocks: number; readonly bytes: number } {
    let blocks = 0;
    let bytes = 0;
    for (const index of this.file.kept()) {
      blocks += 1;
      bytes += this.file.costBytes(index);
    }
    return { blocks, bytes };
  }

  async #write(index: number, tarBytes: Uint8Array): Promise<"written" | "refused" | "failed"> {
    const { quota, logger, onWritten } = this.#context;
    const cost = this.file.costBytes(index);
    if (!(await quota.reserve("decoded", cost))) return "refused";
    for (let isRetry = false; ; isRetry = true) {
      try {
        await this.file.write(index, tarBytes);
        break;
      } catch (error) {
        if (isDiskFull(error) && !isRetry && (await quota.onNoSpace("decoded", cost))) continue;
        quota.release("decoded", cost);
        logger.warn("cache-write-failed", { layer: this.id, block: index, err: error });
        return "failed";
      }
    }
    quota.added(this.slot, index);
    this.isUsed = true;
    onWritten();
    return "written";
  }

  async #confirm(index: number): Promise<boolean> {
    while (this.file.isBusy(index)) await this.file.idle(index);
    if (!this.isDoubtful(index)) return this.file.has(index);
    const isRight = await this.file.exclusive(index, async () => {
      const block = this.table.at(index);
      const range = { start: block.tarOffset, end: block.tarOffset + block.tarLength };
      try {
        const isSame = await hasSha256(await this.file.read(range), block.tarSha256);
        if (isSame) this.file.markVerified(index);
        return isSame;
      } catch (error) {
        this.#context.logger.warn("cache-read-failed", { layer: this.id, err: error });
        return false;
      }
    });
    if (isRight) return this.file.has(index);
    this.#context.logger.info("cached-block-discarded", { layer: this.id, block: index });
    if (!this.isDoubtful(index) || this.file.pinned(index)) return this.file.has(index);
    if (!(await this.#context.quota.evictBlocks(this.slot, [index]))) {
      throw new DaemonError("unavailable", `block ${index} of layer ${this.id} cannot be replaced`);
    }
    return this.file.has(index);
  }
}
