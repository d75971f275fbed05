/** Who is above this node in the trees of its images; most positions differ in something else. */
import type { TreePosition } from "../../peer/index.ts";

export class TreesAbove {
  /** Parent's and root's boot, by image. */
  readonly #known = new Map<string, string>();

  /** Whether somebody else is above us now. */
  note(image: string, position: TreePosition | undefined): boolean {
    if (position === undefined) return this.#known.delete(image);
    const above = `${position.parent?.boot ?? ""} ${position.root.boot}`;
    if (this.#known.get(image) === above) return false;
    this.#known.set(image, above);
    return true;
  }
}
