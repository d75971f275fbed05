/** How fast this node gives: an optional rate, and readers' blocks before bulk. */
import type { Clock } from "../../base/clock.ts";
import { FETCH_PRIORITY } from "../../block/index.ts";
import type { FetchPriority } from "../../block/index.ts";
import { DATA_BYTES_MAX, GIVE_WAY_MS } from "./limits.ts";

/** What may be sent at once after a pause, in seconds of the rate. */
const BURST_SECONDS = 0.05;
/** Bulk leaves this part of the rate's burst to readers. */
const BULK_RESERVE = 0.5;

export interface UploadOptions {
  /** Bytes a second of all replies together; undefined: as fast as the network takes them. */
  readonly bytesPerSecond?: number | undefined;
}

export class UploadLimiter {
  readonly #clock: Clock;
  readonly #rate: number | undefined;
  readonly #burst: number;
  /** Bytes that may be sent now; negative: owed. */
  #tokens: number;
  #filledMs: number;
  /** Readers' streams that have bytes to send. */
  #readers = 0;
  #readersSinceMs = 0;
  /** Bulk streams that give way. */
  readonly #waiting = new Set<() => void>();

  constructor(clock: Clock, { bytesPerSecond }: UploadOptions) {
    this.#clock = clock;
    this.#rate = bytesPerSecond;
    this.#burst = Math.max(DATA_BYTES_MAX, (bytesPerSecond ?? 0) * BURST_SECONDS);
    this.#tokens = this.#burst;
    this.#filledMs = clock.nowMs();
  }

  /** A reader's stream has bytes to send; the result ends that. */
  beginReader(): () => void {
    if (this.#readers === 0) this.#readersSinceMs = this.#clock.nowMs();
    this.#readers += 1;
    let isOpen = true;
    return () => {
      if (!isOpen) return;
      isOpen = false;
      this.#readers -= 1;
      if (this.#readers > 0) return;
      const waiting = [...this.#waiting];
      this.#waiting.clear();
      for (const wake of waiting) wake();
    };
  }

  /** Calls back once when no reader's stream has bytes to send; the result takes that back. */
  whenNoReader(callback: () => void): () => void {
    this.#waiting.add(callback);
    return () => {
      this.#waiting.delete(callback);
    };
  }

  /** Milliseconds until the stream may send again; 0: now. */
  delayMs(priority: FetchPriority): number {
    const nowMs = this.#clock.nowMs();
    const isReader = priority === FETCH_PRIORITY.reader;
    if (!isReader && this.#readers > 0) {
      // Only for a while at a time: readers that never end must not starve bulk for ever.
      const leftMs = GIVE_WAY_MS - ((nowMs - this.#readersSinceMs) % (2 * GIVE_WAY_MS));
      if (leftMs > 0) return leftMs;
    }
    if (this.#rate === undefined) return 0;
    this.#tokens = Math.min(
      this.#burst,
      this.#tokens + ((nowMs - this.#filledMs) / 1000) * this.#rate,
    );
    this.#filledMs = nowMs;
    const needed = isReader ? 0 : this.#burst * BULK_RESERVE;
    return this.#tokens >= needed ? 0 : Math.ceil(((needed - this.#tokens) / this.#rate) * 1000);
  }

  spend(bytes: number): void {
    this.#tokens -= bytes;
  }
}
