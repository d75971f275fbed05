/**
 * The order of inodes in an image: the entries of a directory by name, one after the other, then
 * its subdirectories in turn; so that reading a directory and its inodes reads neighbours.
 */
import { DaemonError } from "../base/errors.ts";
import { nameFault, quoteName } from "./byte-strings.ts";
import type { ErofsInodeInput } from "./tree.ts";

export interface TreeOrder {
  readonly inodes: readonly ErofsInodeInput[];
  readonly indexOf: ReadonlyMap<ErofsInodeInput, number>;
  /** By inode: names that it has; of a directory 2 and its subdirectories. */
  readonly links: readonly number[];
  /** By inode: the directory that a directory lies in; the root's is the root. */
  readonly parents: readonly number[];
  /** By inode: sorted names of a directory with "." and ".."; undefined for others. */
  readonly names: readonly (readonly string[] | undefined)[];
  /** Every directory, in the order in which their entries were numbered. */
  readonly visits: readonly Visit[];
}

export interface Visit {
  readonly directory: number;
  /** The next free number as the directory was entered: that of its first new entry, if any. */
  readonly firstEntry: number;
}

export function orderTree(root: ErofsInodeInput): TreeOrder {
  const walk = new Walk(root);
  for (;;) {
    const next = walk.pending.pop();
    if (next === undefined) return walk;
    walk.enter(next);
  }
}

class Walk implements TreeOrder {
  readonly inodes: ErofsInodeInput[] = [];
  readonly indexOf = new Map<ErofsInodeInput, number>();
  readonly links: number[] = [];
  readonly parents: number[] = [];
  readonly names: (readonly string[] | undefined)[] = [];
  readonly visits: Visit[] = [];
  /** Directories still to enter, the next one last. */
  readonly pending: number[] = [];

  constructor(root: ErofsInodeInput) {
    if (root.entries === undefined) {
      throw new DaemonError("invalid-argument", "the root of an image must be a directory");
    }
    this.#number(root, 0);
    this.pending.push(0);
  }

  enter(index: number): void {
    const entries = this.inodes[index]?.entries ?? new Map<string, ErofsInodeInput>();
    const names = [...entries.keys(), ".", ".."].sort();
    this.names[index] = names;
    this.visits.push({ directory: index, firstEntry: this.inodes.length });
    const firstPending = this.pending.length;
    for (const name of names) {
      const child = entries.get(name);
      if (child === undefined) continue;
      const fault = nameFault(name);
      if (fault !== undefined) {
        throw new DaemonError("invalid-argument", `file name ${quoteName(name)} ${fault}`);
      }
      this.#place(child, index, name);
    }
    const subdirectories = this.pending.splice(firstPending);
    for (const child of subdirectories.reverse()) this.pending.push(child);
    this.links[index] = 2 + subdirectories.length;
  }

  #place(child: ErofsInodeInput, parent: number, name: string): void {
    const known = this.indexOf.get(child);
    if (child.entries === undefined) {
      const index = known ?? this.#number(child, 0);
      this.links[index] = (this.links[index] ?? 0) + 1;
      return;
    }
    if (known !== undefined) {
      throw new DaemonError("invalid-argument", `directory ${quoteName(name)} has two places`);
    }
    this.pending.push(this.#number(child, parent));
  }

  #number(inode: ErofsInodeInput, parent: number): number {
    const index = this.inodes.length;
    this.inodes.push(inode);
    this.indexOf.set(inode, index);
    this.links.push(0);
    this.parents.push(parent);
    this.names.push(undefined);
    return index;
  }
}
