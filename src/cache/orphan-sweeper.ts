/**
 * Frees bytes on disk that no bitmap vouches for: blocks written just before a kill, or left by
 * a write that failed.
 */
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { BLOCK_STATE } from "./block-file.ts";
import type { BlockFile } from "./block-file.ts";
import type { CacheQuota } from "./cache-quota.ts";
import { SWEEP_BLOCKS_MAX, SWEEP_RETRY_MS } from "./limits.ts";
import type { StoreKind } from "./presence-file.ts";

interface Swept {
  readonly kind: StoreKind;
  readonly layerId: string;
  readonly file: BlockFile;
  readonly slot: number;
}

export class OrphanSweeper {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #quota: CacheQuota;
  readonly #slackBytes: number;
  readonly #unknown = new Map<number, { readonly kind: StoreKind; readonly bytes: number }>();
  readonly #tasks = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  constructor(
    dependencies: {
      readonly clock: Clock;
      readonly logger: Logger;
      readonly quota: CacheQuota;
    },
    options: { readonly orphanSlackBytes: number },
  ) {
    this.#clock = dependencies.clock;
    this.#logger = dependencies.logger;
    this.#quota = dependencies.quota;
    this.#slackBytes = options.orphanSlackBytes;
  }

  /** Sweeps the file in the background if it occupies more than its known blocks do. */
  consider(swept: Swept, allocatedBytes: number): void {
    let known = 0;
    for (const index of swept.file.kept()) known += swept.file.costBytes(index);
    const bytes = allocatedBytes - known;
    if (bytes <= this.#slackBytes) return;
    this.#unknown.set(swept.slot, { kind: swept.kind, bytes });
    this.#quota.addUnknown(swept.kind, bytes);
    const task = this.#sweep(swept)
      .catch((error: unknown) => {
        if (this.#closing.signal.aborted) return;
        this.#logger.error("cache-sweep-failed", { layer: swept.layerId, err: error });
      })
      .finally(() => {
        this.#tasks.delete(task);
      });
    this.#tasks.add(task);
  }

  /** The file is closed or swept: its unknown bytes no longer count. */
  forget(slot: number): void {
    const unknown = this.#unknown.get(slot);
    if (unknown === undefined) return;
    this.#unknown.delete(slot);
    this.#quota.release(unknown.kind, unknown.bytes);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled(this.#tasks);
  }

  async #sweep(swept: Swept): Promise<void> {
    const { file, slot } = swept;
    const { signal } = this.#closing;
    for (let first = 0; first < file.blockCount; first += SWEEP_BLOCKS_MAX) {
      for (;;) {
        if (signal.aborted || !this.#unknown.has(slot)) return;
        const orphans: number[] = [];
        const end = Math.min(file.blockCount, first + SWEEP_BLOCKS_MAX);
        for (let index = first; index < end; index += 1) {
          const isAbsent = file.state(index) === BLOCK_STATE.absent;
          if (isAbsent && !file.pinned(index)) orphans.push(index);
        }
        if (await this.#quota.evictBlocks(slot, orphans)) break;
        // Readers may not know yet what is present now (the keeper is being adopted).
        await this.#clock.sleep(SWEEP_RETRY_MS, { signal });
      }
    }
    this.forget(slot);
    this.#logger.info("cache-swept", { layer: swept.layerId, kind: swept.kind });
  }
}
