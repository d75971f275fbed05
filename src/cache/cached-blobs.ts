/** The blob store of one layer: blob bytes as fetched, by block; the first to be evicted. */
import { systemErrorName } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { isPlain, isSequential } from "../block/index.ts";
import type { BlockTable, StoredBlobs } from "../block/index.ts";
import { BLOCK_STATE } from "./block-file.ts";
import type { BlockFile } from "./block-file.ts";
import type { CacheQuota } from "./cache-quota.ts";

export class CachedBlobs implements StoredBlobs {
  readonly file: BlockFile;
  readonly slot: number;
  readonly #table: BlockTable;
  readonly #quota: CacheQuota;
  readonly #logger: Logger;
  readonly #onWritten: () => void;

  constructor(
    parts: { readonly file: BlockFile; readonly slot: number; readonly table: BlockTable },
    context: {
      readonly quota: CacheQuota;
      readonly logger: Logger;
      readonly onWritten: () => void;
    },
  ) {
    this.file = parts.file;
    this.slot = parts.slot;
    this.#table = parts.table;
    this.#quota = context.quota;
    this.#logger = context.logger;
    this.#onWritten = context.onWritten;
  }

  /** Doubtful ones count: whoever reads verifies. */
  has(index: number): boolean {
    const state = this.file.state(index);
    return state === BLOCK_STATE.present || state === BLOCK_STATE.doubtful;
  }

  async read(index: number): Promise<Uint8Array | undefined> {
    if (!this.has(index)) return undefined;
    const { blobOffset, blobLength } = this.#table.at(index);
    // What is asked for stays for a while: others are about to ask for it, too.
    this.#quota.touched(this.slot, index, true);
    const unpin = this.file.pin(index, index);
    try {
      return await this.file.read({ start: blobOffset, end: blobOffset + blobLength });
    } catch (error) {
      this.#logger.warn("cache-read-failed", { err: error, errno: systemErrorName(error) });
      return undefined;
    } finally {
      unpin();
    }
  }

  async write(index: number, bytes: Uint8Array): Promise<void> {
    // All blocks of such a frame have the frame's range: there is nothing to keep by block. And
    // uncompressed bytes are in the decoded store.
    const block = this.#table.at(index);
    if (isSequential(block) || isPlain(block)) return;
    while (this.file.isBusy(index)) await this.file.idle(index);
    if (this.file.state(index) !== BLOCK_STATE.absent || this.#quota.isClosed) return;
    await this.file.exclusive(index, async () => {
      const cost = this.file.costBytes(index);
      if (!(await this.#quota.reserve("blobs", cost))) return;
      try {
        await this.file.write(index, bytes);
      } catch (error) {
        this.#quota.release("blobs", cost);
        this.#logger.warn("cache-write-failed", { err: error });
        return;
      }
      this.#quota.added(this.slot, index);
      this.#onWritten();
    });
  }

  async discard(index: number): Promise<void> {
    while (this.file.isBusy(index)) await this.file.idle(index);
    if (this.has(index) && !this.file.pinned(index)) {
      await this.#quota.evictBlocks(this.slot, [index]);
    }
  }

  usage(): { readonly blocks: number; readonly bytes: number } {
    let blocks = 0;
    let bytes = 0;
    for (const index of this.file.kept()) {
      blocks += 1;
      bytes += this.file.costBytes(index);
    }
    return { blocks, bytes };
  }
}
