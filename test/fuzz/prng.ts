/** Pseudo-random numbers from a number: the same seed gives the same numbers on every machine. */

/** sfc32 of PractRand, a small generator that passes its tests. */
export class Prng {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number, stream = 0) {
    this.#a = seed >>> 0;
    this.#b = stream >>> 0;
    this.#c = (Math.imul(seed, 0x9e3779b1) ^ Math.floor(stream / 2 ** 32)) >>> 0;
    for (let round = 0; round < 12; round += 1) this.uint32();
  }

  uint32(): number {
    const result = (this.#a + this.#b + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = (this.#b ^ (this.#b >>> 9)) >>> 0;
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) >>> 0;
    return result;
  }

  /** 0 to `end` - 1; `end` is at least 1. */
  below(end: number): number {
    return this.uint32() % end;
  }

  /** True once in `n`. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)];
    if (item === undefined) throw new Error("nothing to pick from");
    return item;
  }
}
