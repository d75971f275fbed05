/** A clock that jumps: sleeping takes no time, timers fire when the test moves the clock. */
import { throwIfAborted } from "../../../src/base/abort.ts";
import type { Clock } from "../../../src/base/clock.ts";

interface Timer {
  readonly atMs: number;
  readonly callback: () => void;
}

export class InstantClock implements Clock {
  #nowMs = 1_000_000;
  readonly #timers = new Set<Timer>();
  /** Every sleep, in milliseconds. */
  readonly sleeps: number[] = [];

  nowMs(): number {
    return this.#nowMs;
  }

  wallNs(): bigint {
    return BigInt(Math.round(this.#nowMs * 1000)) * 1000n + 1_700_000_000_000_000_000n;
  }

  get timerCount(): number {
    return this.#timers.size;
  }

  async sleep(delayMs: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    throwIfAborted(signal);
    this.sleeps.push(delayMs);
    this.advance(delayMs);
    // Lets whatever I/O is ready go first, as a real sleep would.
    await new Promise((resolve) => setImmediate(resolve));
    throwIfAborted(signal);
  }

  timer(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return () => {
      this.#timers.delete(timer);
    };
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of [...this.#timers]) {
      if (timer.atMs > this.#nowMs) continue;
      this.#timers.delete(timer);
      timer.callback();
    }
  }
}
