/** So much per second, and so much at once. */
export class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #left: number;
  #atMs: number;

  constructor({ perSecond, burst, nowMs }: TokenBucketOptions) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#left = burst;
    this.#atMs = nowMs;
  }

  /**
   * 0: taken. Else in how many ms it may be asked again. What is larger than the burst is given
   * when the bucket is full, and leaves it in debt: else it would never be given.
   */
  take(count: number, nowMs: number): number {
    this.#left = Math.min(
      this.#burst,
      this.#left + (Math.max(0, nowMs - this.#atMs) / 1000) * this.#perSecond,
    );
    this.#atMs = nowMs;
    const needed = Math.min(count, this.#burst);
    if (this.#left >= needed) {
      this.#left -= count;
      return 0;
    }
    if (this.#perSecond === 0) return NEVER_MS;
    return Math.ceil(((needed - this.#left) / this.#perSecond) * 1000);
  }
}

export interface TokenBucketOptions {
  readonly perSecond: number;
  readonly burst: number;
  readonly nowMs: number;
}

/** Nothing is ever given: ask again in an hour. */
const NEVER_MS = 3_600_000;
