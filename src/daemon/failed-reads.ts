/**
 * Blocks that readers have just waited for in vain. The kernel repeats a failed read in smaller
 * pieces (read-ahead, then the request, then page by page), each of which would wait the whole
 * limit again: for a moment they fail at once.
 */
import { LRUCache } from "lru-cache";
import type { Clock } from "../base/clock.ts";
import type { DaemonError } from "../base/errors.ts";

/** Longer than the kernel takes for its repetitions, shorter than anybody's patience. */
const FAIL_FAST_MS = 3_000;
const BLOCKS_MAX = 4096;

interface FailedRead {
  readonly error: DaemonError;
  readonly untilMs: number;
}

export class FailedReads {
  readonly #clock: Clock;
  readonly #blocks = new LRUCache<string, FailedRead>({ max: BLOCKS_MAX });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(layerId: string, block: number, error: DaemonError): void {
    const untilMs = this.#clock.nowMs() + FAIL_FAST_MS;
    this.#blocks.set(`${layerId} ${block}`, { error, untilMs });
  }

  /** The error that a read of the block failed with a moment ago. */
  recent(layerId: string, block: number): DaemonError | undefined {
    const failed = this.#blocks.get(`${layerId} ${block}`);
    if (failed === undefined || failed.untilMs < this.#clock.nowMs()) return undefined;
    return failed.error;
  }
}
