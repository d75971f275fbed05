/** A clock that moves only when told to. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { onAbort, throwIfAborted } from "../../../src/base/abort.ts";
import type { Clock } from "../../../src/base/clock.ts";

export class FakeClock implements Clock {
  #nowMs = 1000;
  #timers: { readonly atMs: number; readonly order: number; readonly callback: () => void }[] = [];
  #order = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  wallNs(): bigint {
    return BigInt(Math.round(this.#nowMs)) * 1_000_000n + 1_700_000_000_000_000_000n;
  }

  async sleep(delayMs: number, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    throwIfAborted(signal);
    await new Promise<void>((resolve, reject) => {
      const stop = onAbort(signal, (reason) => {
        cancel();
        reject(reason);
      });
      const cancel = this.timer(delayMs, () => {
        stop();
        resolve();
      });
    });
  }

  timer(delayMs: number, callback: () => void): () => void {
    this.#order += 1;
    const entry = { atMs: this.#nowMs + delayMs, order: this.#order, callback };
    this.#timers.push(entry);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== entry);
    };
  }

  get pendingTimers(): number {
    return this.#timers.length;
  }

  /** Runs due timers in order; what they start gets its turns in between. */
  async advance(durationMs: number): Promise<void> {
    const endMs = this.#nowMs + durationMs;
    for (;;) {
      await settle();
      const due = this.#timers
        .filter((timer) => timer.atMs <= endMs)
        .sort((a, b) => a.atMs - b.atMs || a.order - b.order)[0];
      if (due === undefined) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.callback();
    }
    this.#nowMs = endMs;
    await settle();
  }
}

/** Lets everything run that needs no time. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 12; turn += 1) await nextTurn();
}
