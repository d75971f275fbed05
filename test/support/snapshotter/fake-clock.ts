/** A clock that stands still unless it is told to go on. */
import type { Clock } from "../../../src/base/clock.ts";
import { abortReason } from "../../../src/base/abort.ts";

interface Timer {
  readonly atMs: number;
  readonly callback: () => void;
}

export class FakeClock implements Clock {
  #ms = 0;
  readonly #timers = new Set<Timer>();
  wall = 1_700_000_000_000_000_000n;

  nowMs(): number {
    return this.#ms;
  }

  wallNs(): bigint {
    return this.wall;
  }

  timer(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#ms + delayMs, callback };
    this.#timers.add(timer);
    return () => {
      this.#timers.delete(timer);
    };
  }

  sleep(delayMs: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = this.timer(delayMs, resolve);
      signal.addEventListener("abort", () => {
        stop();
        reject(abortReason(signal));
      });
    });
  }

  get timers(): number {
    return this.#timers.size;
  }

  advance(ms: number): void {
    this.#ms += ms;
    this.wall += BigInt(ms) * 1_000_000n;
    for (const timer of [...this.#timers]) {
      if (timer.atMs > this.#ms) continue;
      this.#timers.delete(timer);
      timer.callback();
    }
  }
}
