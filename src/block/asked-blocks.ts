/** Which blocks of a layer other nodes have asked for: one that two ask for is worth keeping. */
import { ASKED_BLOCKS_MAX } from "./limits.ts";

export class AskedBlocks {
  /** The one child that has asked, or the mark of two. */
  readonly #askers = new Map<number, string | undefined>();
  #anonymous = 0;

  /** Notes the request. `isNew`: this child had not asked before, as far as is remembered. */
  note(
    index: number,
    child: string | undefined,
  ): { /** Two stands for more, too. */ readonly children: 1 | 2; readonly isNew: boolean } {
    const isKnown = this.#askers.has(index);
    const first = this.#askers.get(index);
    if (isKnown && first === undefined) return { children: 2, isNew: false };
    const asker = child ?? this.#nameless();
    if (first === asker) return { children: 1, isNew: false };
    if (isKnown) {
      this.#askers.set(index, undefined);
      return { children: 2, isNew: true };
    }
    if (this.#askers.size >= ASKED_BLOCKS_MAX) {
      const [oldest] = this.#askers.keys();
      if (oldest !== undefined) this.#askers.delete(oldest);
    }
    this.#askers.set(index, asker);
    return { children: 1, isNew: true };
  }

  /** Each request without a name counts as another child's. */
  #nameless(): string {
    this.#anonymous += 1;
    return `#${this.#anonymous}`;
  }
}
