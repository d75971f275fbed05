/**
 * Which of one sender's counters were seen: the highest and the 63 below it. Older ones are refused
 * unseen. Source: RFC 4303 3.4.3 (IPsec's anti-replay window).
 */
const WINDOW = 64n;
const MASK = (1n << WINDOW) - 1n;

export class ReplayWindow {
  #highest = -1n;
  /** Bit n: the counter n below the highest was seen. */
  #seen = 0n;

  /** True, and remembered, the first time; false for a repetition or one too old. */
  accept(counter: bigint): boolean {
    if (counter > this.#highest) {
      const ahead = counter - this.#highest;
      this.#seen = ahead >= WINDOW ? 1n : ((this.#seen << ahead) | 1n) & MASK;
      this.#highest = counter;
      return true;
    }
    const behind = this.#highest - counter;
    if (behind >= WINDOW) return false;
    const bit = 1n << behind;
    if ((this.#seen & bit) !== 0n) return false;
    this.#seen |= bit;
    return true;
  }
}
