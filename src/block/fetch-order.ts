/**
 * In which order a layer's blocks were first wanted here: what a child asks ahead in. Bounded: the
 * first ones are remembered, which are those of a start.
 */
import { FETCH_ORDER_BLOCKS_MAX } from "./limits.ts";

export interface OrderPart {
  /** Block indexes of the layer, each once in all parts together. */
  readonly blocks: readonly number[];
  /** What to ask `since` for next time. */
  readonly next: number;
}

export class FetchOrder {
  readonly #blocks: number[] = [];
  readonly #known = new Set<number>();
  readonly #onNew: (index: number) => void;

  constructor(onNew: (index: number) => void = () => undefined) {
    this.#onNew = onNew;
  }

  /** Blocks so far. */
  get length(): number {
    return this.#blocks.length;
  }

  /** The block is wanted; only the first time counts. */
  add(index: number): void {
    if (this.#blocks.length >= FETCH_ORDER_BLOCKS_MAX || this.#known.has(index)) return;
    this.#known.add(index);
    this.#blocks.push(index);
    this.#onNew(index);
  }

  /** The blocks from the `from`-th on; at most `limit` of them. */
  since(from: number, limit = FETCH_ORDER_BLOCKS_MAX): OrderPart {
    const start = Math.min(Math.max(0, Math.floor(from)), this.#blocks.length);
    const blocks = this.#blocks.slice(start, start + limit);
    return { blocks, next: start + blocks.length };
  }
}
