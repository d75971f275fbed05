/** A set of half-open byte ranges: sorted, merged, searched by bisection. */

export interface ByteRange {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** Sorted disjoint ranges; adjacent ones are merged. Sizes are bytes below 2^53. */
export class RangeSet {
  /** start0, end0, start1, end1, …: strictly increasing. */
  readonly #bounds: number[] = [];

  static of(ranges: Iterable<ByteRange>): RangeSet {
    const set = new RangeSet();
    for (const range of ranges) set.add(range);
    return set;
  }

  /** Index of the first bound greater than `offset`. */
  #upperBound(offset: number): number {
    let low = 0;
    let high = this.#bounds.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#bounds[middle] ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Index of the first bound not less than `offset`. */
  #lowerBound(offset: number): number {
    const index = this.#upperBound(offset);
    return index > 0 && this.#bounds[index - 1] === offset ? index - 1 : index;
  }

  add({ start, end }: ByteRange): void {
    if (end <= start) return;
    const first = this.#lowerBound(start);
    const last = this.#upperBound(end);
    const insert: number[] = [];
    if (first % 2 === 0) insert.push(start);
    if (last % 2 === 0) insert.push(end);
    this.#bounds.splice(first, last - first, ...insert);
  }

  remove({ start, end }: ByteRange): void {
    if (end <= start) return;
    const first = this.#lowerBound(start);
    const last = this.#upperBound(end);
    const insert: number[] = [];
    if (first % 2 === 1) insert.push(start);
    if (last % 2 === 1) insert.push(end);
    this.#bounds.splice(first, last - first, ...insert);
  }

  has({ start, end }: ByteRange): boolean {
    if (end <= start) return true;
    const index = this.#upperBound(start);
    return index % 2 === 1 && (this.#bounds[index] ?? 0) >= end;
  }

  /** The parts of the range that are not in the set, in order. */
  missing(range: ByteRange): ByteRange[] {
    const gaps: ByteRange[] = [];
    let { start } = range;
    // From the range that holds `start`, else from the first one after it.
    for (let index = this.#upperBound(start) & ~1; index < this.#bounds.length; index += 2) {
      const presentStart = this.#bounds[index] ?? 0;
      if (presentStart >= range.end) break;
      if (presentStart > start) gaps.push({ start, end: presentStart });
      start = this.#bounds[index + 1] ?? 0;
    }
    if (start < range.end) gaps.push({ start, end: range.end });
    return gaps;
  }

  *[Symbol.iterator](): IterableIterator<ByteRange> {
    for (let index = 0; index < this.#bounds.length; index += 2) {
      yield { start: this.#bounds[index] ?? 0, end: this.#bounds[index + 1] ?? 0 };
    }
  }
}
