/** Notices that a source has gone silent: first to lend its slot, then to give it up. */
import { raceAbort } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";

export interface SilenceOptions {
  /** Silence after which the request no longer counts as active. */
  readonly parkMs: number;
  /** Silence after which the request is given up. */
  readonly giveUpMs: number;
}

export interface SilenceHandlers {
  onPark(): void;
  onUnpark(): void;
  /** Once. */
  onGiveUp(): void;
}

/** Measures only the time spent waiting for the source, never the consumer's own. */
export class SilenceWatch {
  readonly #clock: Clock;
  readonly #options: SilenceOptions;
  readonly #handlers: SilenceHandlers;
  #waitingSinceMs: number | undefined;
  #isParked = false;
  #cancelTimer: (() => void) | undefined;
  #isStopped = false;

  constructor(clock: Clock, options: SilenceOptions, handlers: SilenceHandlers) {
    this.#clock = clock;
    this.#options = options;
    this.#handlers = handlers;
  }

  /** Waits for the source; rejects with the signal's reason when aborted. */
  async wait<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
    this.#waitingSinceMs = this.#clock.nowMs();
    if (this.#cancelTimer === undefined) this.#arm(this.#options.parkMs);
    try {
      return await raceAbort(work, signal);
    } finally {
      this.#waitingSinceMs = undefined;
      if (this.#isParked) {
        this.#isParked = false;
        this.#cancelTimer?.(); // it was set for giving up; the next silence starts anew
        this.#cancelTimer = undefined;
        this.#handlers.onUnpark();
      }
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
  }

  /** One timer for the whole stream, not one per piece. */
  #arm(delayMs: number): void {
    if (this.#isStopped) return;
    this.#cancelTimer = this.#clock.timer(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#check();
    });
  }

  #check(): void {
    if (this.#waitingSinceMs === undefined) return; // armed again by the next wait
    const silentMs = this.#clock.nowMs() - this.#waitingSinceMs;
    const { parkMs, giveUpMs } = this.#options;
    if (silentMs >= giveUpMs) {
      this.#handlers.onGiveUp();
      return;
    }
    if (silentMs >= parkMs && !this.#isParked) {
      this.#isParked = true;
      this.#handlers.onPark();
    }
    this.#arm(Math.max(1, (this.#isParked ? giveUpMs : parkMs) - silentMs));
  }
}

/** The stream's pieces, each waited for under the watch; one that ignores the signal is left. */
export async function* watchedStream(
  stream: AsyncIterable<Uint8Array>,
  watch: SilenceWatch,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await watch.wait(iterator.next(), signal);
      if (step.done === true) return;
      yield step.value;
    }
  } finally {
    // Not awaited: a generator stuck in its own wait would answer only after it.
    iterator.return?.().catch(() => undefined);
  }
}
