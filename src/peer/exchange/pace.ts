/**
 * How long a silence means something on this machine now. Where a process has to wait for a
 * processor its own timers are late, and what it takes for a peer's silence is its own: it waits
 * longer then, as Lifeguard's members do that doubt themselves (arXiv 1707.00788, 3).
 */
import type { Clock } from "../../base/clock.ts";

/** A busy event loop is late by so much, though nothing is wrong. */
const USUAL_MS = 25;
/** Patience for each ms beyond. */
const PER_LATE_MS = 10;
export const PATIENCE_MS_MAX = 3000;
/** After so long without a late timer half of the lateness is forgotten. */
const HALF_LIFE_MS = 1000;

export class Pace {
  readonly #clock: Clock;
  #lateMs = 0;
  #atMs: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#atMs = clock.nowMs();
  }

  /** A timer came so long after its time. */
  note(lateMs: number): void {
    const nowMs = this.#clock.nowMs();
    const latestMs = this.#faded(nowMs);
    this.#lateMs = Math.max(latestMs, lateMs);
    this.#atMs = nowMs;
  }

  /** `ms` on a machine at leisure; at most `PATIENCE_MS_MAX` more on one that is not. */
  patienceMs(ms: number): number {
    const lateMs = Math.max(0, this.#faded(this.#clock.nowMs()) - USUAL_MS);
    return ms + Math.min(PATIENCE_MS_MAX, PER_LATE_MS * lateMs);
  }

  #faded(nowMs: number): number {
    return this.#lateMs * 2 ** (-(nowMs - this.#atMs) / HALF_LIFE_MS);
  }
}
