/** Notices that a source has gone silent: first to lend its slot, then to give it up. */
import { raceAbort } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";

export interface SilenceOptions {
  /** Silence after which the request no longer counts as active. */
  readonly parkMs: number;
  /** Silence after which the request is given up. */
  readonly giveUpMs: number;
}

/** `waiting`: it brings no bytes, but gives signs of life. `silent`: neither. */
export type Flow = "flowing" | "waiting" | "silent";

export interface SilenceHandlers {
  onFlow(flow: Flow, before: Flow): void;
  /** Once. */
  onGiveUp(): void;
}

/** Measures only the time spent waiting for the source, never the consumer's own. */
export class SilenceWatch {
  readonly #clock: Clock;
  readonly #options: SilenceOptions;
  readonly #handlers: SilenceHandlers;
  #waitingSinceMs: number | undefined;
  #aliveAtMs = -Infinity;
  #flow: Flow = "flowing";
  #cancelTimer: (() => void) | undefined;
  #isStopped = false;

  constructor(clock: Clock, options: SilenceOptions, handlers: SilenceHandlers) {
    this.#clock = clock;
    this.#options = options;
    this.#handlers = handlers;
  }

  get flow(): Flow {
    return this.#flow;
  }

  /** Waits for the source; rejects with the signal's reason when aborted. */
  async wait<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
    this.#waitingSinceMs = this.#clock.nowMs();
    if (this.#cancelTimer === undefined) this.#arm(this.#options.parkMs);
    try {
      return await raceAbort(work, signal);
    } finally {
      this.#waitingSinceMs = undefined;
      if (this.#flow !== "flowing") {
        this.#cancelTimer?.(); // it was set for giving up; the next silence starts anew
        this.#cancelTimer = undefined;
        this.#become("flowing");
      }
    }
  }

  /** A sign of life that is no bytes: the source itself waits. */
  alive(): void {
    if (this.#isStopped || this.#waitingSinceMs === undefined) return;
    this.#aliveAtMs = this.#clock.nowMs();
    this.#become("waiting");
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
    const nowMs = this.#clock.nowMs();
    const dryMs = nowMs - this.#waitingSinceMs;
    const silentMs = nowMs - Math.max(this.#waitingSinceMs, this.#aliveAtMs);
    const { parkMs, giveUpMs } = this.#options;
    if (silentMs >= giveUpMs) {
      this.#handlers.onGiveUp();
      return;
    }
    if (dryMs >= parkMs) this.#become(silentMs >= parkMs ? "silent" : "waiting");
    const nextMs = {
      flowing: parkMs - dryMs,
      waiting: parkMs - silentMs,
      silent: giveUpMs - silentMs,
    };
    this.#arm(Math.max(1, nextMs[this.#flow]));
  }

  #become(flow: Flow): void {
    const before = this.#flow;
    if (before === flow) return;
    this.#flow = flow;
    this.#handlers.onFlow(flow, before);
  }
}

/**
 * The stream's pieces, each waited for under the watch; an empty one is a sign of life. One that
 * ignores the signal is left.
 */
export async function* watchedStream(
  stream: AsyncIterable<Uint8Array>,
  watch: SilenceWatch,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const iterator = stream[Symbol.asyncIterator]();
  try {
    for (;;) {
      const step = await watch.wait(nextBytes(iterator, watch), signal);
      if (step.done === true) return;
      yield step.value;
    }
  } finally {
    // Not awaited: a generator stuck in its own wait would answer only after it.
    iterator.return?.().catch(() => undefined);
  }
}

async function nextBytes(
  iterator: AsyncIterator<Uint8Array>,
  watch: SilenceWatch,
): Promise<IteratorResult<Uint8Array>> {
  for (;;) {
    const step = await iterator.next();
    if (step.done === true || step.value.length > 0) return step;
    watch.alive();
  }
}
