/**
 * A small LRU of blocks in memory, bounded in bytes: decoded ones that found no room on disk, and
 * verified blob bytes that another node may ask for next.
 */
import { LRUCache } from "lru-cache";

export class MemoryBlocks {
  readonly #cache: LRUCache<string, Uint8Array> | undefined;

  /** 0 keeps nothing. */
  constructor(bytesMax: number) {
    this.#cache =
      bytesMax === 0
        ? undefined
        : new LRUCache({ maxSize: bytesMax, sizeCalculation: (bytes) => bytes.length + 64 });
  }

  get bytes(): number {
    return this.#cache?.calculatedSize ?? 0;
  }

  has(layerId: string, index: number): boolean {
    return this.#cache?.has(`${layerId}/${index}`) === true;
  }

  get(layerId: string, index: number): Uint8Array | undefined {
    return this.#cache?.get(`${layerId}/${index}`);
  }

  /** A block larger than the whole cache is not kept. */
  set(layerId: string, index: number, bytes: Uint8Array): void {
    if (bytes.length > 0) this.#cache?.set(`${layerId}/${index}`, bytes);
  }

  clear(): void {
    this.#cache?.clear();
  }
}
