/** Where this member stands in its trees, and who wants to hear of it. */
import type { Clock } from "../../base/clock.ts";
import type { PeerRef, Position } from "../tree/index.ts";

export type PositionListener = (image: string, position: Position | undefined) => void;

/** A tree's size alone is told so much later, ms: it changes with every join. */
const SIZE_MS = 1000;

export class Positions implements Disposable {
  readonly #clock: Clock;
  /** By image; bounded by the images that were joined. */
  readonly #positions = new Map<string, Position>();
  /** Images of which another size was not told yet. */
  readonly #resized = new Set<string>();
  readonly #listeners = new Set<PositionListener>();
  #cancelTelling: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get(image: string): Position | undefined {
    return this.#positions.get(image);
  }

  /** Listeners hear of what is news: a manager repeats what it has said. */
  set(image: string, position: Position | undefined): void {
    const before = this.#positions.get(image);
    if (position === undefined) this.#positions.delete(image);
    else this.#positions.set(image, position);
    if (before === position || (before !== undefined && isSamePlace(before, position))) {
      if (before?.size !== position?.size) this.#tellSizeLater(image);
      return;
    }
    this.#tell(image);
  }

  /** The returned function stops it. */
  listen(listener: PositionListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  [Symbol.dispose](): void {
    this.#cancelTelling?.();
  }

  #tell(image: string): void {
    this.#resized.delete(image);
    const position = this.#positions.get(image);
    for (const listener of this.#listeners) listener(image, position);
  }

  #tellSizeLater(image: string): void {
    this.#resized.add(image);
    this.#cancelTelling ??= this.#clock.timer(SIZE_MS, () => {
      this.#cancelTelling = undefined;
      for (const each of [...this.#resized]) this.#tell(each);
    });
  }
}

/** But for the size. */
function isSamePlace(one: Position, other: Position | undefined): boolean {
  if (other === undefined) return false;
  return (
    one.slot === other.slot &&
    one.depth === other.depth &&
    one.zone === other.zone &&
    one.isRoot === other.isRoot &&
    one.children === other.children &&
    one.epoch.counter === other.epoch.counter &&
    one.epoch.manager === other.epoch.manager &&
    isSameRef(one.root, other.root) &&
    isSameRef(one.parent, other.parent) &&
    isSameRef(one.grandparent, other.grandparent)
  );
}

function isSameRef(one: PeerRef | undefined, other: PeerRef | undefined): boolean {
  if (one === undefined || other === undefined) return one === other;
  return (
    one.boot === other.boot &&
    one.id === other.id &&
    one.address.host === other.address.host &&
    one.address.port === other.address.port &&
    one.exchangePort === other.exchangePort &&
    one.zone === other.zone &&
    one.version === other.version
  );
}
