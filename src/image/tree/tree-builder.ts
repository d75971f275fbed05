/**
 * Builds one layer's file tree from its tar entries, with the result that containerd's unpacking
 * of the layer into an overlayfs upper directory has (pkg/archive/tar.go, `applyNaive` with
 * `OverlayConvertWhiteout`; checked against the tree that containerd makes).
 *
 * Where containerd fails an unpack we refuse the layer, with these differences:
 * - an entry followed by its own whiteout stays (the whiteout speaks of lower layers:
 *   image-spec layer.md), and repeated whiteouts are one; containerd fails with EEXIST;
 * - `..` out of the root is refused; containerd bends it back into the root;
 * - times before 1970 stay; containerd sets 1970;
 * - nothing inherits a directory's default ACL, and an opaque mark removes nothing of its own
 *   layer, whatever the layer's place: docs/equality.md;
 * - contiguous files and old GNU sparse files are files; containerd fails.
 */
import { defaultDirectory, ErofsInodeInput, type ErofsAttributes } from "../../erofs/index.ts";
import { quoteBytes } from "../quote.ts";
import {
  IMPLICIT,
  IMPLICIT_ROOT_XATTR,
  IMPLICIT_XATTR,
  isMark,
  MARK_VALUE,
  OPAQUE_XATTR,
} from "../layer-xattrs.ts";
import {
  LAYER_FOLDERS_MADE_MAX,
  LAYER_STEPS_MAX,
  SYMLINKS_WALKED_MAX,
  TREE_DEPTH_MAX,
} from "../limits.ts";
import type { TarEntry } from "../tar/entry.ts";
import { tarError } from "../tar/error.ts";
import {
  describedAgain,
  describedLater,
  entryError,
  isSymlink,
  linkedAttributes,
  S_IFCHR,
  S_ISGID,
  toAttributes,
  toData,
} from "./inode.ts";
import { cleanPath } from "./path.ts";

const WHITEOUT_PREFIX = ".wh.";
const WHITEOUT_META_PREFIX = ".wh..wh.";
const OPAQUE_MARKER = ".wh..wh..opq";

/** A directory inode and its entries. */
interface Directory {
  readonly inode: ErofsInodeInput;
  readonly entries: Map<string, ErofsInodeInput>;
}

export interface TreeCounts {
  entries: number;
  files: number;
  directories: number;
  symlinks: number;
  hardLinks: number;
  specials: number;
  whiteouts: number;
  /** Bytes of all files as a reader sees them, a file with several names once. */
  fileBytes: number;
}

export class TreeBuilder {
  readonly #root: Directory;
  #foldersMade = 0;
  #steps = 0;
  readonly counts: TreeCounts = {
    entries: 0,
    files: 0,
    directories: 0,
    symlinks: 0,
    hardLinks: 0,
    specials: 0,
    whiteouts: 0,
    fileBytes: 0,
  };

  constructor() {
    this.#root = newDirectory(markedDirectory(IMPLICIT_ROOT_XATTR, MARK_VALUE));
  }

  get root(): ErofsInodeInput {
    return this.#root.inode;
  }

  /** Throws `invalid-argument` or `unimplemented`, naming the entry and the rule. */
  add(entry: TarEntry): void {
    this.counts.entries += 1;
    const parts = checkedPath(entry, entry.path);
    const name = parts.at(-1);
    if (name === undefined) {
      this.#describeRoot(entry);
      return;
    }
    const parent = this.#openParent(entry, parts.slice(0, -1));
    if (name.startsWith(WHITEOUT_PREFIX)) this.#addWhiteout(entry, parent, name);
    else if (entry.type === "hard-link") this.#addHardLink(entry, parent, name);
    else if (entry.type === "directory") this.#addDirectory(entry, parent, name);
    else this.#addLeaf(entry, entry.type, parent, name);
  }

  /**
   * containerd ignores an entry for the root, whose mode and owner are the snapshotter's own
   * (0755, root). Only the time is taken: the alternative would be the time of unpacking.
   */
  #describeRoot(entry: TarEntry): void {
    if (entry.type !== "directory") return;
    const { inode } = this.#root;
    const xattrs = new Map(inode.attributes.xattrs);
    xattrs.delete(IMPLICIT_ROOT_XATTR);
    const { mtimeSec, mtimeNsec } = entry;
    inode.attributes = { ...inode.attributes, mtimeSec, mtimeNsec, xattrs };
  }

  #addDirectory(entry: TarEntry, parent: Directory, name: string): void {
    this.counts.directories += 1;
    const existing = parent.entries.get(name);
    if (existing?.entries === undefined) {
      parent.entries.set(name, newDirectory(toAttributes(entry, "directory")).inode);
      return;
    }
    const held = existing.attributes.xattrs;
    if (held.has(IMPLICIT_XATTR)) {
      existing.attributes = describedLater(held, entry);
      setXattr(existing, IMPLICIT_XATTR, IMPLICIT.describedLater);
    } else existing.attributes = describedAgain(held, entry);
  }

  #addLeaf(
    entry: TarEntry,
    type: "block-device" | "char-device" | "fifo" | "file" | "symlink",
    parent: Directory,
    name: string,
  ): void {
    if (type === "file") {
      this.counts.files += 1;
      this.counts.fileBytes += entry.size;
    } else if (type === "symlink") this.counts.symlinks += 1;
    else this.counts.specials += 1;
    const attributes = toAttributes(entry, type);
    parent.entries.set(name, new ErofsInodeInput(attributes, { data: toData(entry, type) }));
  }

  /**
   * The target must be in this layer: containerd links inside the layer's own directory, so a link
   * to a file of a lower layer fails there too.
   */
  #addHardLink(entry: TarEntry, parent: Directory, name: string): void {
    this.counts.hardLinks += 1;
    // The old entry goes first: a link to itself has no target.
    parent.entries.delete(name);
    const parts = checkedPath(entry, entry.linkPath);
    const targetName = parts.at(-1);
    const folder = targetName === undefined ? undefined : this.#findDirectory(entry, parts);
    const target = targetName === undefined ? undefined : folder?.entries.get(targetName);
    if (target === undefined) {
      const rule = `hard link to ${quoteBytes(entry.linkPath)}, which is not in this layer`;
      throw tarError(rule, { path: entry.path, offset: entry.headerOffset }, "unimplemented");
    }
    if (target.entries !== undefined) throw entryError(entry, "hard link to a directory");
    target.attributes = linkedAttributes(target.attributes, entry);
    parent.entries.set(name, target);
  }

  #addWhiteout(entry: TarEntry, parent: Directory, name: string): void {
    if (name === OPAQUE_MARKER) {
      this.counts.whiteouts += 1;
      setXattr(parent.inode, OPAQUE_XATTR, MARK_VALUE);
      return;
    }
    // Other doubly marked names are aufs's own bookkeeping, of no meaning to anybody else.
    if (name.startsWith(WHITEOUT_META_PREFIX)) return;
    const hidden = name.slice(WHITEOUT_PREFIX.length);
    if (hidden === "" || hidden === "." || hidden === "..") {
      throw entryError(entry, "whiteout of no name");
    }
    this.counts.whiteouts += 1;
    const existing = parent.entries.get(hidden);
    if (existing !== undefined) {
      // Hidden is what lower layers have under this name; a directory of this layer stays alone.
      if (existing.entries !== undefined) setXattr(existing, OPAQUE_XATTR, MARK_VALUE);
      return;
    }
    parent.entries.set(hidden, new ErofsInodeInput(whiteoutAttributes()));
  }

  /** Follows symlinks of this layer and makes missing directories. */
  #openParent(entry: TarEntry, parts: readonly string[]): Directory {
    const parent = this.#walk(entry, parts, (directory, name) => {
      this.#foldersMade += 1;
      if (this.#foldersMade > LAYER_FOLDERS_MADE_MAX) {
        const rule = `more than ${LAYER_FOLDERS_MADE_MAX} folders that only paths name`;
        throw entryError(entry, rule);
      }
      const made = newDirectory(namedIn(directory.inode.attributes));
      directory.entries.set(name, made.inode);
      return made;
    });
    if (parent === undefined) throw entryError(entry, "parent is missing");
    return parent;
  }

  /** The directory of a link's target, or undefined where the layer has none. */
  #findDirectory(entry: TarEntry, parts: readonly string[]): Directory | undefined {
    return this.#walk(entry, parts.slice(0, -1), () => undefined);
  }

  /** Resolves inside the layer as containerd's fs.RootPath: symlinks never leave the root. */
  #walk(
    entry: TarEntry,
    parts: readonly string[],
    onMissing: (directory: Directory, name: string) => Directory | undefined,
  ): Directory | undefined {
    const trail: Directory[] = [];
    let current = this.#root;
    let symlinks = 0;
    const pending = [...parts].reverse();
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      this.#steps += 1;
      if (this.#steps > LAYER_STEPS_MAX) {
        throw entryError(entry, `more than ${LAYER_STEPS_MAX} steps through folders`);
      }
      if (name === "" || name === ".") continue;
      if (name === "..") {
        current = trail.pop() ?? this.#root;
        continue;
      }
      const child = current.entries.get(name);
      if (child !== undefined && isSymlink(child.attributes.mode)) {
        symlinks += 1;
        if (symlinks > SYMLINKS_WALKED_MAX) throw entryError(entry, "too many symlinks in path");
        const target = symlinkTarget(child);
        if (target.startsWith("/")) {
          trail.length = 0;
          current = this.#root;
        }
        pending.push(...target.split("/").reverse());
        continue;
      }
      const next = child === undefined ? onMissing(current, name) : asDirectory(entry, child, name);
      if (next === undefined) return undefined;
      trail.push(current);
      if (trail.length > TREE_DEPTH_MAX) throw entryError(entry, "tree is too deep");
      current = next;
    }
    return current;
  }
}

function asDirectory(entry: TarEntry, inode: ErofsInodeInput, name: string): Directory {
  if (inode.entries !== undefined) return { inode, entries: inode.entries };
  throw entryError(entry, `its parent ${quoteBytes(name)} is not a directory`);
}

function newDirectory(attributes: ErofsAttributes): Directory {
  const inode = new ErofsInodeInput(attributes);
  const entries = inode.entries ?? new Map<string, ErofsInodeInput>();
  return { inode, entries };
}

function markedDirectory(mark: string, value: Uint8Array): ErofsAttributes {
  return { ...defaultDirectory(), xattrs: new Map([[mark, value]]) };
}

/**
 * A directory that is only named. In a set-group-ID one it gets its group; the bit falls to the
 * chmod that follows. What the group of a parent is that is only named too, the merge knows.
 */
function namedIn(parent: ErofsAttributes): ErofsAttributes {
  const parentMark = parent.xattrs.get(IMPLICIT_XATTR);
  const isParentNamed = parentMark !== undefined && !isMark(parentMark, IMPLICIT.describedLater);
  const mark = isParentNamed ? IMPLICIT.inNamed : IMPLICIT.named;
  const named = markedDirectory(IMPLICIT_XATTR, mark);
  return (parent.mode & S_ISGID) === 0 ? named : { ...named, gid: parent.gid };
}

function whiteoutAttributes(): ErofsAttributes {
  return { ...defaultDirectory(), mode: S_IFCHR };
}

function setXattr(inode: ErofsInodeInput, name: string, value: Uint8Array): void {
  const xattrs = new Map(inode.attributes.xattrs);
  xattrs.set(name, value);
  inode.attributes = { ...inode.attributes, xattrs };
}

function symlinkTarget(inode: ErofsInodeInput): string {
  if (inode.data.kind !== "inline") return "";
  return Buffer.from(inode.data.bytes).toString("latin1");
}

function checkedPath(entry: TarEntry, path: string): readonly string[] {
  const cleaned = cleanPath(path);
  if ("parts" in cleaned) return cleaned.parts;
  throw entryError(entry, path === entry.path ? cleaned.rule : `link target: ${cleaned.rule}`);
}
