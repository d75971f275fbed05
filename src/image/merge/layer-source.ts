/** A layer that is merged: its reader, within the bounds of what one merge may take. */
import { DaemonError } from "../../base/errors.ts";
import {
  ErofsInodeInput,
  type ErofsAttributes,
  type ErofsData,
  type ErofsDirent,
  type ErofsInode,
  type ErofsReader,
} from "../../erofs/index.ts";
import { shownXattrs } from "./marks.ts";

/** Names, extents and xattrs of all layers together: what we hold in memory at once. */
export const MERGE_ITEMS_MAX = 8_000_000;
/** No item takes less of an image than the id of a shared xattr; so many must be made up. */
const ITEM_BYTES_MIN = 4;
/** Searches for the attributes of directories that a layer only names. */
export const MERGE_LOOKUPS_MAX = 16_000_000;
/** Values of xattrs of all layers together. */
export const MERGE_XATTR_BYTES_MAX = 256 * 1024 * 1024;

export class Budget {
  #items: number;
  #lookups = MERGE_LOOKUPS_MAX;
  #xattrBytes = MERGE_XATTR_BYTES_MAX;

  constructor(imageBytes: number) {
    this.#items = Math.min(MERGE_ITEMS_MAX, imageBytes / ITEM_BYTES_MIN);
  }

  takeItems(count: number): void {
    this.#items -= count;
    if (this.#items < 0) {
      throw new DaemonError("data-loss", "layers hold more items than they have room for");
    }
  }

  takeLookups(count: number): void {
    this.#lookups -= count;
    if (this.#lookups < 0) {
      throw new DaemonError("data-loss", `layers need more than ${MERGE_LOOKUPS_MAX} searches`);
    }
  }

  takeXattrs(xattrs: ReadonlyMap<string, Uint8Array>): void {
    this.takeItems(xattrs.size);
    for (const value of xattrs.values()) this.#xattrBytes -= value.length;
    if (this.#xattrBytes < 0) {
      throw new DaemonError("data-loss", `xattrs exceed ${MERGE_XATTR_BYTES_MAX} bytes`);
    }
  }
}

/** One layer: reads it, moves its data to its device, keeps the identity of its inodes. */
export class LayerSource {
  readonly reader: ErofsReader;
  readonly deviceBytes: number;
  /** 0 is the bottom layer. */
  readonly index: number;
  readonly #budget: Budget;
  readonly #files = new Map<number, ErofsInodeInput>();
  readonly #entered = new Set<number>();

  constructor(reader: ErofsReader, index: number, budget: Budget) {
    const [bytes = 0, ...others] = reader.deviceBytes;
    if (others.length > 0) {
      throw new DaemonError("data-loss", `layer ${index} has more than one data device`);
    }
    this.reader = reader;
    this.deviceBytes = bytes;
    this.index = index;
    this.#budget = budget;
  }

  /** A directory is entered once: a tree that is none ends here, not in a loop. */
  readDir(inode: ErofsInode): ErofsDirent[] {
    if (this.#entered.has(inode.nid)) {
      throw new DaemonError("data-loss", `layer ${this.index}: directory in two places`);
    }
    this.#entered.add(inode.nid);
    const dirents = this.reader.readDir(inode);
    this.#budget.takeItems(dirents.length);
    return dirents;
  }

  xattrs(inode: ErofsInode): ReadonlyMap<string, Uint8Array> {
    const xattrs = this.reader.xattrs(inode);
    this.#budget.takeXattrs(xattrs);
    return xattrs;
  }

  file(inode: ErofsInode): ErofsInodeInput {
    const known = this.#files.get(inode.nid);
    if (known !== undefined) return known;
    const attributes = shown(attributesOf(inode, this.xattrs(inode)));
    const file = new ErofsInodeInput(attributes, { data: this.#data(inode), nlink: inode.nlink });
    this.#files.set(inode.nid, file);
    return file;
  }

  root(): ErofsInode {
    return this.reader.inode(this.reader.rootNid);
  }

  lookup(directory: ErofsInode, name: string): ErofsInode | undefined {
    this.#budget.takeLookups(1);
    const nid = this.reader.lookup(directory, name);
    return nid === undefined ? undefined : this.reader.inode(nid);
  }

  /** A symlink's target; its components are to be searched for. */
  readlink(inode: ErofsInode): string {
    const target = this.reader.readlink(inode);
    this.#budget.takeLookups(target.split("/").length);
    return target;
  }

  #data(inode: ErofsInode): ErofsData {
    const data = this.reader.data(inode);
    if (data.kind !== "extents") return data;
    this.#budget.takeItems(data.extents.length);
    const device = this.index + 1;
    const extents = data.extents.map(({ fileOffset, length, deviceOffset }) => {
      return { fileOffset, length, device, deviceOffset };
    });
    return { kind: "extents", size: data.size, extents };
  }
}

/** One layer's part in a directory. */
export interface DirectoryPart {
  readonly source: LayerSource;
  readonly inode: ErofsInode;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

/** As the layer has them, its marks included. */
export function attributesOf(
  inode: ErofsInode,
  xattrs: ReadonlyMap<string, Uint8Array>,
): ErofsAttributes {
  const { mode, uid, gid, mtimeSec, mtimeNsec, rdevMajor, rdevMinor } = inode;
  return { mode, uid, gid, mtimeSec, mtimeNsec, rdevMajor, rdevMinor, xattrs };
}

export function shown(attributes: ErofsAttributes): ErofsAttributes {
  return { ...attributes, xattrs: shownXattrs(attributes.xattrs) };
}
