/** Where this member stands in its trees, and who wants to hear of it. */
import type { Position } from "../tree/index.ts";

export type PositionListener = (image: string, position: Position | undefined) => void;

export class Positions {
  /** By image; bounded by the images that were joined. */
  readonly #positions = new Map<string, Position>();
  readonly #listeners = new Set<PositionListener>();

  get(image: string): Position | undefined {
    return this.#positions.get(image);
  }

  set(image: string, position: Position | undefined): void {
    if (position === undefined) this.#positions.delete(image);
    else this.#positions.set(image, position);
    for (const listener of this.#listeners) listener(image, position);
  }

  /** The returned function stops it. */
  listen(listener: PositionListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }
}
