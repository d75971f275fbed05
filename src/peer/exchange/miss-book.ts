/**
 * Blocks that were not here when a child asked. An interior member does not fetch what it never
 * wanted for itself, unless two children want it: then one fetch instead of two goes up the tree.
 */
import { CHILDREN_TO_FETCH, MISSES_MAX } from "./limits.ts";

export class MissBook {
  /** Children that asked, by block; the oldest block is forgotten first. */
  readonly #misses = new Map<string, Set<string>>();

  /** Whether enough other children have asked for the block before. */
  isWantedByOthers(key: string, asker: string): boolean {
    const askers = this.#misses.get(key);
    if (askers === undefined) return false;
    const others = askers.size - (askers.has(asker) ? 1 : 0);
    return others + 1 >= CHILDREN_TO_FETCH;
  }

  note(key: string, asker: string): void {
    const askers = this.#misses.get(key) ?? new Set<string>();
    this.#misses.delete(key);
    this.#misses.set(key, askers);
    if (askers.size < CHILDREN_TO_FETCH) askers.add(asker);
    const [oldest] = this.#misses.keys();
    if (this.#misses.size > MISSES_MAX && oldest !== undefined) this.#misses.delete(oldest);
  }
}
