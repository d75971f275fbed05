/**
 * Reads metadata images from memory. An image may come from anybody: what does not hold together
 * is `data-loss`, found before anything is allocated for it.
 */
import { dataLoss, FILE_TYPE, FILE_TYPE_MASK, SYMLINK_BYTES_MAX } from "./format.ts";
import { INLINE_DATA_BYTES_MAX } from "./format.ts";
import { parseDirectory, parseLookup, type ErofsDirent } from "./parse-directory.ts";
import {
  isChunkBased,
  parseExtents,
  parseFlatData,
  parseInode,
  parseXattrs,
  type ErofsInode,
} from "./parse-inode.ts";
import { parseSuperblock, type ErofsImage } from "./superblock.ts";
import { NO_DATA, type ErofsData } from "./tree.ts";

/** An inode by its number, or as it was read before (which saves reading it again). */
type InodeRef = number | ErofsInode;

export class ErofsReader {
  readonly #image: ErofsImage;

  private constructor(image: ErofsImage) {
    this.#image = image;
  }

  /** Keeps `bytes` and reads from them; xattr values are views into them. */
  static open(bytes: Uint8Array): ErofsReader {
    const { buffer, byteOffset, byteLength } = bytes;
    return new ErofsReader(parseSuperblock(Buffer.from(buffer, byteOffset, byteLength)));
  }

  get imageBytes(): number {
    return this.#image.bytes.length;
  }

  get rootNid(): number {
    return this.#image.rootNid;
  }

  /** As the image says; nothing depends on it. */
  get inodeCount(): number {
    return this.#image.inodeCount;
  }

  /** Bytes of the data devices in order, in whole blocks. */
  get deviceBytes(): readonly number[] {
    return this.#image.devices;
  }

  inode(nid: number): ErofsInode {
    return parseInode(this.#image, nid);
  }

  /** Entries in the order of their bytes, without "." and "..". */
  readDir(directory: InodeRef): ErofsDirent[] {
    return parseDirectory(this.#image, this.#resolve(directory));
  }

  /** The nid of a name, or undefined. */
  lookup(directory: InodeRef, name: string): number | undefined {
    return parseLookup(this.#image, this.#resolve(directory), name);
  }

  xattrs(inode: InodeRef): ReadonlyMap<string, Uint8Array> {
    return parseXattrs(this.#image, this.#resolve(inode));
  }

  /** Where a file's bytes are; a symlink's target is `inline`. */
  data(inode: InodeRef): ErofsData {
    return parseData(this.#image, this.#resolve(inode));
  }

  readlink(inode: InodeRef): string {
    return parseSymlink(this.#image, this.#resolve(inode));
  }

  #resolve(ref: InodeRef): ErofsInode {
    return typeof ref === "number" ? this.inode(ref) : ref;
  }
}

function parseData(image: ErofsImage, inode: ErofsInode): ErofsData {
  const type = inode.mode & FILE_TYPE_MASK;
  if (type !== FILE_TYPE.regular && type !== FILE_TYPE.symlink) return NO_DATA;
  if (isChunkBased(inode)) {
    return { kind: "extents", size: inode.size, extents: parseExtents(image, inode) };
  }
  if (inode.size === 0) return NO_DATA;
  const bytesMax = type === FILE_TYPE.symlink ? SYMLINK_BYTES_MAX : INLINE_DATA_BYTES_MAX;
  return { kind: "inline", bytes: parseFlatData(image, inode, bytesMax) };
}

function parseSymlink(image: ErofsImage, inode: ErofsInode): string {
  const isSymlink = (inode.mode & FILE_TYPE_MASK) === FILE_TYPE.symlink;
  if (!isSymlink || inode.size === 0) throw dataLoss(`inode ${inode.nid} is not a symlink`);
  const target = parseFlatData(image, inode, SYMLINK_BYTES_MAX);
  if (target.includes(0)) throw dataLoss(`symlink ${inode.nid} holds a zero byte`);
  return target.toString("latin1");
}
