/** How many streams each member has open here. */
import { DaemonError } from "../../base/errors.ts";

export class StreamLimit {
  readonly #perChild: number;
  readonly #all: number;
  readonly #open = new Map<string, number>();
  #total = 0;

  constructor(options: { readonly perChild: number; readonly all: number }) {
    this.#perChild = options.perChild;
    this.#all = options.all;
  }

  get size(): number {
    return this.#total;
  }

  /** Takes a stream for the child, or `resource-exhausted`; the result gives it back. */
  enter(childId: string): () => void {
    const open = this.#open.get(childId) ?? 0;
    if (open >= this.#perChild || this.#total >= this.#all) {
      throw new DaemonError("resource-exhausted", "too many streams are open here");
    }
    this.#open.set(childId, open + 1);
    this.#total += 1;
    let isOpen = true;
    return () => {
      if (!isOpen) return;
      isOpen = false;
      this.#total -= 1;
      const left = (this.#open.get(childId) ?? 1) - 1;
      if (left === 0) this.#open.delete(childId);
      else this.#open.set(childId, left);
    };
  }
}
