/**
 * Local health awareness: a member that misses acks and nacks, or has to refute, is probably the
 * one that is slow, and waits longer before it accuses others. Source: Lifeguard 4.1.
 */
export class Awareness {
  readonly #max: number;
  #score = 0;

  /** `max`: one more than the highest score. */
  constructor(max: number) {
    this.#max = max;
  }

  /** 0 is healthy. */
  get score(): number {
    return this.#score;
  }

  /** Adds `delta`, within 0 and max - 1. */
  add(delta: number): void {
    this.#score = Math.min(Math.max(this.#score + delta, 0), this.#max - 1);
  }

  scaleMs(ms: number): number {
    return ms * (this.#score + 1);
  }
}
