/**
 * A map that forgets what was used longest ago. Unlike lru-cache it takes no room before it is
 * filled: most clusters are small, and tests run a thousand nodes in one process.
 */
export class RecentMap<K, V> {
  readonly #max: number;
  /** The one that was used longest ago first. */
  readonly #entries = new Map<K, V>();

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  set(key: K, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= this.#max) return;
    for (const oldest of this.#entries.keys()) {
      this.#entries.delete(oldest);
      return;
    }
  }

  values(): Iterable<V> {
    return this.#entries.values();
  }
}
