/**
 * Readers of metadata images: over a buffer (synchronous) and over a file (asynchronous, with
 * about 1 MiB of pages in memory). An image may come from anybody: what does not hold together
 * is `data-loss`, found before anything is allocated for it.
 */
import type { FileHandle } from "node:fs/promises";
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
import {
  PagedFile,
  parseBuffer,
  parseRandomAccess,
  type Parse,
  type RandomAccess,
} from "./source.ts";
import { parseSuperblock, type Superblock } from "./superblock.ts";
import { NO_DATA, type ErofsAttributes, type ErofsData } from "./tree.ts";

/** An inode by its number, or as it was read before (which saves reading it again). */
export type InodeRef = number | ErofsInode;

type Wait = Readonly<{ signal: AbortSignal }>;

/** Facts of the whole image. */
class ErofsImage {
  readonly superblock: Superblock;

  protected constructor(superblock: Superblock) {
    this.superblock = superblock;
  }

  get rootNid(): number {
    return this.superblock.rootNid;
  }

  /** As the image says; nothing depends on it. */
  get inodeCount(): number {
    return this.superblock.inodeCount;
  }

  /** Bytes of the data devices in order, in whole blocks. */
  get deviceBytes(): readonly number[] {
    return this.superblock.devices;
  }
}

export class ErofsReader extends ErofsImage {
  readonly #image: Buffer;

  private constructor(image: Buffer, superblock: Superblock) {
    super(superblock);
    this.#image = image;
  }

  /** Keeps `image` and reads from it; xattr values are views into it. */
  static open(image: Uint8Array): ErofsReader {
    const buffer = Buffer.from(image.buffer, image.byteOffset, image.byteLength);
    return new ErofsReader(buffer, parseBuffer(buffer, parseSuperblock(buffer.length)));
  }

  inode(nid: number): ErofsInode {
    return this.#run(parseInode(this.superblock, nid));
  }

  /** Entries in the order of their bytes, without "." and "..". */
  readDir(directory: InodeRef): ErofsDirent[] {
    return this.#run(parseDirectory(this.superblock, this.#resolve(directory)));
  }

  /** The nid of a name, or undefined. */
  lookup(directory: InodeRef, name: string): number | undefined {
    return this.#run(parseLookup(this.superblock, this.#resolve(directory), name));
  }

  xattrs(inode: InodeRef): ReadonlyMap<string, Uint8Array> {
    return this.#run(parseXattrs(this.superblock, this.#resolve(inode)));
  }

  /** Where a file's bytes are; a symlink's target is `inline`. */
  data(inode: InodeRef): ErofsData {
    return this.#run(parseData(this.superblock, this.#resolve(inode)));
  }

  readlink(inode: InodeRef): string {
    return this.#run(parseSymlink(this.superblock, this.#resolve(inode)));
  }

  attributes(inode: InodeRef): ErofsAttributes {
    const found = this.#resolve(inode);
    return attributesOf(found, this.xattrs(found));
  }

  #resolve(ref: InodeRef): ErofsInode {
    return typeof ref === "number" ? this.inode(ref) : ref;
  }

  #run<T>(parse: Parse<T>): T {
    return parseBuffer(this.#image, parse);
  }
}

/** The same over a file or anything else that can be read by offset; owns nothing. */
export class ErofsFileReader extends ErofsImage {
  readonly #source: RandomAccess;

  private constructor(source: RandomAccess, superblock: Superblock) {
    super(superblock);
    this.#source = source;
  }

  static async open(source: RandomAccess, wait: Wait): Promise<ErofsFileReader> {
    const superblock = await parseRandomAccess(source, parseSuperblock(source.size), wait);
    return new ErofsFileReader(source, superblock);
  }

  /** Does not close the file. */
  static async openFile(file: FileHandle, wait: Wait): Promise<ErofsFileReader> {
    const { size } = await file.stat();
    return ErofsFileReader.open(new PagedFile(file, size), wait);
  }

  async inode(nid: number, wait: Wait): Promise<ErofsInode> {
    return this.#run(parseInode(this.superblock, nid), wait);
  }

  async readDir(directory: InodeRef, wait: Wait): Promise<ErofsDirent[]> {
    return this.#run(parseDirectory(this.superblock, await this.#resolve(directory, wait)), wait);
  }

  async lookup(directory: InodeRef, name: string, wait: Wait): Promise<number | undefined> {
    const found = await this.#resolve(directory, wait);
    return this.#run(parseLookup(this.superblock, found, name), wait);
  }

  async xattrs(inode: InodeRef, wait: Wait): Promise<ReadonlyMap<string, Uint8Array>> {
    return this.#run(parseXattrs(this.superblock, await this.#resolve(inode, wait)), wait);
  }

  async data(inode: InodeRef, wait: Wait): Promise<ErofsData> {
    return this.#run(parseData(this.superblock, await this.#resolve(inode, wait)), wait);
  }

  async readlink(inode: InodeRef, wait: Wait): Promise<string> {
    return this.#run(parseSymlink(this.superblock, await this.#resolve(inode, wait)), wait);
  }

  async #resolve(ref: InodeRef, wait: Wait): Promise<ErofsInode> {
    return typeof ref === "number" ? this.inode(ref, wait) : ref;
  }

  async #run<T>(parse: Parse<T>, wait: Wait): Promise<T> {
    return parseRandomAccess(this.#source, parse, wait);
  }
}

function attributesOf(inode: ErofsInode, xattrs: ReadonlyMap<string, Uint8Array>): ErofsAttributes {
  const { mode, uid, gid, mtimeSec, mtimeNsec, rdevMajor, rdevMinor } = inode;
  return { mode, uid, gid, mtimeSec, mtimeNsec, rdevMajor, rdevMinor, xattrs };
}

function* parseData(superblock: Superblock, inode: ErofsInode): Parse<ErofsData> {
  const type = inode.mode & FILE_TYPE_MASK;
  if (type !== FILE_TYPE.regular && type !== FILE_TYPE.symlink) return NO_DATA;
  if (isChunkBased(inode)) {
    const extents = yield* parseExtents(superblock, inode);
    return { kind: "extents", size: inode.size, extents };
  }
  if (inode.size === 0) return NO_DATA;
  const bytesMax = type === FILE_TYPE.symlink ? SYMLINK_BYTES_MAX : INLINE_DATA_BYTES_MAX;
  return { kind: "inline", bytes: yield* parseFlatData(superblock, inode, bytesMax) };
}

function* parseSymlink(superblock: Superblock, inode: ErofsInode): Parse<string> {
  const isSymlink = (inode.mode & FILE_TYPE_MASK) === FILE_TYPE.symlink;
  if (!isSymlink || inode.size === 0) throw dataLoss(`inode ${inode.nid} is not a symlink`);
  const target = yield* parseFlatData(superblock, inode, SYMLINK_BYTES_MAX);
  if (target.includes(0)) throw dataLoss(`symlink ${inode.nid} holds a zero byte`);
  return target.toString("latin1");
}
