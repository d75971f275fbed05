/**
 * Makes written blocks survive a crash: many of them with one fdatasync, a while after the first.
 * Blocks whose fdatasync failed go: the disk may not hold what the page cache still shows.
 */
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { BlockFile } from "./block-file.ts";
import type { CacheQuota } from "./cache-quota.ts";

export interface FlushedFile {
  readonly file: BlockFile;
  readonly slot: number;
}

export interface FlusherParts {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly quota: CacheQuota;
  readonly delayMs: number;
  /** Of all open layers. */
  readonly files: () => readonly FlushedFile[];
  /** Called after each round. */
  readonly onFlushed: () => Promise<void>;
}

export class Flusher {
  readonly #parts: FlusherParts;
  readonly #tasks = new Set<Promise<void>>();
  #cancel: (() => void) | undefined;
  #isClosed = false;

  constructor(parts: FlusherParts) {
    this.#parts = parts;
  }

  /** Something was written. */
  schedule(): void {
    if (this.#cancel !== undefined || this.#isClosed) return;
    const { clock, delayMs, files } = this.#parts;
    this.#cancel = clock.timer(delayMs, () => {
      const task = this.#run().finally(() => {
        this.#tasks.delete(task);
        this.#cancel = undefined;
        if (files().some(({ file }) => file.hasUnflushed)) this.schedule();
      });
      this.#tasks.add(task);
    });
  }

  /** Every file is tried; the first failure is thrown. */
  async flush(): Promise<void> {
    const failures: unknown[] = [];
    for (const { file, slot } of this.#parts.files()) {
      try {
        await file.flush();
      } catch (error) {
        failures.push(error);
      }
      await this.#evictLost(file, slot);
    }
    if (failures.length > 0) throw failures[0];
    await this.#parts.onFlushed();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel?.();
    await Promise.allSettled(this.#tasks);
  }

  async #run(): Promise<void> {
    try {
      await this.flush();
    } catch (error) {
      // Nothing is lost but the chance to keep these blocks.
      this.#parts.logger.error("cache-flush-failed", { err: error });
    }
  }

  /** Those that a reader was just told of, or that are being read, with a later round. */
  async #evictLost(file: BlockFile, slot: number): Promise<void> {
    if (file.lost.size === 0) return;
    const { quota } = this.#parts;
    const indexes = quota.evictable(slot).filter((index) => file.lost.has(index));
    await quota.evictBlocks(slot, indexes);
  }
}
