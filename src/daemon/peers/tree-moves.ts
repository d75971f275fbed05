/** When this node was last given another parent or root, by image. */
import type { Clock } from "../../base/clock.ts";
import type { TreePosition } from "../../peer/index.ts";

interface Place {
  readonly above: string;
  readonly sinceMs: number;
}

export class TreeMoves {
  readonly #clock: Clock;
  /** Of images whose trees this node is in. */
  readonly #places = new Map<string, Place>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(image: string, position: TreePosition | undefined): void {
    if (position === undefined) {
      this.#places.delete(image);
      return;
    }
    const above = `${position.parent?.boot ?? ""} ${position.root.boot}`;
    if (this.#places.get(image)?.above === above) return;
    this.#places.set(image, { above, sinceMs: this.#clock.nowMs() });
  }

  /** Local clock, ms; -Infinity where there is no place. */
  lastMs(image: string): number {
    return this.#places.get(image)?.sinceMs ?? -Infinity;
  }
}
