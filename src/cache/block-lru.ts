/** Blocks of all layers in order of last use: a Map's insertion order, oldest first. */
import { LAYER_BLOCKS_MAX } from "./limits.ts";

export interface BlockRef {
  readonly slot: number;
  readonly index: number;
}

export class BlockLru {
  /** slot * LAYER_BLOCKS_MAX + index -> until when it may not be evicted (ms). */
  readonly #entries = new Map<number, number>();

  has({ slot, index }: BlockRef): boolean {
    return this.#entries.has(slot * LAYER_BLOCKS_MAX + index);
  }

  /** 0 for a block that it does not know. */
  heldUntilMs({ slot, index }: BlockRef): number {
    return this.#entries.get(slot * LAYER_BLOCKS_MAX + index) ?? 0;
  }

  /** The block is now the most recently used. */
  add({ slot, index }: BlockRef, heldUntilMs: number): void {
    const key = slot * LAYER_BLOCKS_MAX + index;
    this.#entries.delete(key);
    this.#entries.set(key, heldUntilMs);
  }

  /** Moves a known block to the end; keeps its hold unless a longer one is given. */
  touch({ slot, index }: BlockRef, heldUntilMs = 0): void {
    const key = slot * LAYER_BLOCKS_MAX + index;
    const held = this.#entries.get(key);
    if (held === undefined) return;
    this.#entries.delete(key);
    this.#entries.set(key, Math.max(held, heldUntilMs));
  }

  delete({ slot, index }: BlockRef): void {
    this.#entries.delete(slot * LAYER_BLOCKS_MAX + index);
  }

  /** Oldest first. */
  *[Symbol.iterator](): IterableIterator<BlockRef & { readonly heldUntilMs: number }> {
    for (const [key, heldUntilMs] of this.#entries) {
      const slot = Math.floor(key / LAYER_BLOCKS_MAX);
      yield { slot, index: key - slot * LAYER_BLOCKS_MAX, heldUntilMs };
    }
  }
}
