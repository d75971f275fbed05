/**
 * From libfuse's paths back to inodes. libfuse 2's high-level interface names files by path; ours
 * by inode. Nothing changes under a mount, so an entry once found stays right.
 */
import { Errno, ENOENT } from "./errno.ts";
import type { FuseFileSystem, Reply } from "./file-system.ts";

export const CACHED_PATHS_MAX = 4096;
const REPLACEMENT = "\u{fffd}";

/** The UTF-8 text that fuse-native hands over, as one character per byte. */
export function bytesOfText(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** What fuse-native can say of a byte string: bytes that are not UTF-8 become U+FFFD. */
export function textOfBytes(bytes: string): string {
  return Buffer.from(bytes, "latin1").toString("utf8");
}

export class PathResolver {
  readonly #fileSystem: FuseFileSystem;
  /** In order of last use, oldest first. */
  readonly #inodes = new Map<string, number>();

  constructor(fileSystem: FuseFileSystem) {
    this.#fileSystem = fileSystem;
  }

  get cachedPaths(): number {
    return this.#inodes.size;
  }

  /** `path` is absolute within the mount, without a trailing slash; "/" is the root. */
  resolve(path: string): Reply<number> {
    if (path === "/") return this.#fileSystem.rootInode;
    const known = this.#inodes.get(path);
    if (known !== undefined) {
      this.#inodes.delete(path);
      this.#inodes.set(path, known);
      return known;
    }
    const slash = path.lastIndexOf("/");
    const parent = this.resolve(slash <= 0 ? "/" : path.slice(0, slash));
    const name = path.slice(slash + 1);
    if (parent instanceof Promise) return parent.then((inode) => this.#child(path, inode, name));
    return this.#child(path, parent, name);
  }

  #child(path: string, parent: number | Errno, name: string): Reply<number> {
    if (parent instanceof Errno) return parent;
    const found = this.#fileSystem.lookup(parent, bytesOfText(name));
    if (found instanceof Promise) {
      return found.then((inode) => this.#settle(path, parent, name, inode));
    }
    return this.#settle(path, parent, name, found);
  }

  #settle(path: string, parent: number, name: string, found: number | Errno): Reply<number> {
    if (found instanceof Errno) {
      return found === ENOENT && name.includes(REPLACEMENT)
        ? this.#lookupLossy(path, parent, name)
        : found;
    }
    return this.#remember(path, found);
  }

  /**
   * A name that is not UTF-8 arrives with U+FFFD in place of its odd bytes, and is listed so too:
   * the first entry that reads the same is taken.
   */
  async #lookupLossy(path: string, parent: number, name: string): Promise<number | Errno> {
    const entries = await this.#fileSystem.readdir(parent);
    if (entries instanceof Errno) return entries;
    const entry = entries.find((one) => textOfBytes(one.name) === name);
    return entry === undefined ? ENOENT : this.#remember(path, entry.inode);
  }

  #remember(path: string, inode: number): number {
    this.#inodes.set(path, inode);
    if (this.#inodes.size > CACHED_PATHS_MAX) {
      const oldest = this.#inodes.keys().next();
      if (oldest.done !== true) this.#inodes.delete(oldest.value);
    }
    return inode;
  }
}
