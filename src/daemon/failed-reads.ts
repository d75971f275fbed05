/**
 * Blocks that readers have just waited for in vain. The kernel repeats a failed read in smaller
 * pieces (read-ahead, then the request, then page by page), each of which would wait the whole
 * limit again: for a moment they fail at once.
 */
import { LRUCache } from "lru-cache";
import type { Clock } from "../base/clock.ts";
import type { DaemonError } from "../base/errors.ts";

/** The kernel repeats a millisecond after the answer; whoever else tries again finds out anew. */
const REPEAT_MS = 25;
/** All repetitions together. */
const FAIL_FAST_MS_MAX = 1_000;
const BLOCKS_MAX = 4096;

interface FailedRead {
  readonly error: DaemonError;
  readonly lastMs: number;
  untilMs: number;
}

export class FailedReads {
  readonly #clock: Clock;
  readonly #blocks = new LRUCache<string, FailedRead>({ max: BLOCKS_MAX });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(layerId: string, block: number, error: DaemonError): void {
    const nowMs = this.#clock.nowMs();
    const failed = { error, lastMs: nowMs + FAIL_FAST_MS_MAX, untilMs: nowMs + REPEAT_MS };
    this.#blocks.set(`${layerId} ${block}`, failed);
  }

  /** The error for a repetition of a read that failed; undefined for a new read. */
  repeated(layerId: string, block: number): DaemonError | undefined {
    const nowMs = this.#clock.nowMs();
    const failed = this.#blocks.get(`${layerId} ${block}`);
    if (failed === undefined || failed.untilMs < nowMs) return undefined;
    failed.untilMs = Math.min(nowMs + REPEAT_MS, failed.lastMs);
    return failed.error;
  }
}
