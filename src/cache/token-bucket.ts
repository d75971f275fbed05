/** A byte rate: takers pay afterwards, so that one large taking needs no large bucket. */
import type { Clock } from "../base/clock.ts";

export class TokenBucket {
  readonly #clock: Clock;
  readonly #ratePerSecond: number;
  /** When everything taken so far is paid for. */
  #paidAtMs = 0;

  /** 0: no limit. */
  constructor(clock: Clock, ratePerSecond: number) {
    this.#clock = clock;
    this.#ratePerSecond = ratePerSecond;
  }

  /** Waits until what was taken before is paid for, then takes. */
  async take(count: number, options: { readonly signal: AbortSignal }): Promise<void> {
    if (this.#ratePerSecond === 0) return;
    const waitMs = this.#paidAtMs - this.#clock.nowMs();
    if (waitMs > 0) await this.#clock.sleep(waitMs, options);
    const fromMs = Math.max(this.#paidAtMs, this.#clock.nowMs());
    this.#paidAtMs = fromMs + (count / this.#ratePerSecond) * 1000;
  }
}
