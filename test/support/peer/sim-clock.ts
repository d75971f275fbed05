/** The clocks of simulated nodes: one time for all, each with its own error of the wall clock. */
import { abortReason, onAbort } from "../../../src/base/abort.ts";
import type { Clock } from "../../../src/base/clock.ts";
import { EventQueue } from "./event-queue.ts";

const EPOCH_MS = 1_700_000_000_000;

export class SimTime {
  readonly queue = new EventQueue();
  nowMs = 1000;

  run(forMs: number): void {
    const untilMs = this.nowMs + forMs;
    for (;;) {
      const event = this.queue.take(untilMs);
      if (event === undefined) break;
      this.nowMs = Math.max(this.nowMs, event.atMs);
      event.run();
    }
    this.nowMs = untilMs;
  }

  /** As `run`, with room for promises between the steps. */
  async runAsync(forMs: number, stepMs = 10): Promise<void> {
    for (let passedMs = 0; passedMs < forMs; passedMs += stepMs) {
      this.run(Math.min(stepMs, forMs - passedMs));
      for (let turn = 0; turn < 8; turn += 1) await Promise.resolve();
    }
  }
}

export class SimClock implements Clock {
  readonly #time: SimTime;
  /** Ahead of the others' wall clocks. */
  aheadMs = 0;
  /** Timers that have called back. */
  fired = 0;

  constructor(time: SimTime) {
    this.#time = time;
  }

  nowMs(): number {
    return this.#time.nowMs;
  }

  wallNs(): bigint {
    return BigInt(Math.round(EPOCH_MS + this.#time.nowMs + this.aheadMs)) * 1_000_000n;
  }

  timer(delayMs: number, callback: () => void): () => void {
    let isOn = true;
    this.#time.queue.add(this.#time.nowMs + delayMs, () => {
      if (!isOn) return;
      this.fired += 1;
      callback();
    });
    return () => {
      isOn = false;
    };
  }

  async sleep(delayMs: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      if (signal.aborted) {
        reject(abortReason(signal));
        return;
      }
      const stop = this.timer(delayMs, resolve);
      onAbort(signal, (reason) => {
        stop();
        reject(reason);
      });
    });
  }
}
