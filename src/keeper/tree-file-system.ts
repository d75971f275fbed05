/** fuse mode: a merged EROFS metadata image as a whole file system, its data from the layers. */
import { open } from "node:fs/promises";
import { DaemonError } from "../base/errors.ts";
import {
  ErofsReader,
  FILE_TYPE,
  FILE_TYPE_MASK,
  IMAGE_BYTES_MAX,
  piecesOf,
} from "../erofs/index.ts";
import type { ErofsData } from "../erofs/index.ts";
import { EINVAL, EIO, EISDIR, ENODATA, ENOENT, ENOTDIR } from "../fuse/index.ts";
import type {
  FuseAttributes,
  FuseDirEntry,
  FuseFile,
  FuseFileSystem,
  FuseStatfs,
  Reply,
  Errno,
} from "../fuse/index.ts";

/** The part of a layer device that is needed here. */
export interface TreeDevice {
  read(buffer: Uint8Array, offset: number): Promise<number>;
}

/** A stat through fuse-native has 32 bits for the inode number. */
const INODE_MAX = 0xffff_ffff;

/** The image as a whole in memory: about 100 bytes a file. */
export async function openTreeMetadata(path: string): Promise<ErofsReader> {
  const file = await open(path, "r");
  try {
    const { size } = await file.stat();
    if (size > IMAGE_BYTES_MAX) {
      throw new DaemonError("resource-exhausted", `${path}: ${size} bytes of metadata`);
    }
    return ErofsReader.open(await file.readFile());
  } finally {
    await file.close();
  }
}

/** Inode numbers are EROFS node ids, as in erofs mode: names of a hard link share one. */
export class TreeFileSystem implements FuseFileSystem {
  readonly rootInode: number;
  readonly #metadata: ErofsReader;
  readonly #devices: readonly TreeDevice[];

  constructor(metadata: ErofsReader, devices: readonly TreeDevice[]) {
    this.#metadata = metadata;
    this.#devices = devices;
    this.rootInode = metadata.rootNid;
  }

  lookup(parent: number, name: string): Reply<number> {
    const directory = this.#metadata.inode(parent);
    if ((directory.mode & FILE_TYPE_MASK) !== FILE_TYPE.directory) return ENOTDIR;
    const nid = this.#metadata.lookup(directory, name);
    if (nid === undefined) return ENOENT;
    return nid > INODE_MAX ? EIO : nid;
  }

  getattr(inode: number): Reply<FuseAttributes> {
    const { nid, ...attributes } = this.#metadata.inode(inode);
    return { ...attributes, inode: nid };
  }

  readdir(inode: number): Reply<readonly FuseDirEntry[]> {
    const directory = this.#metadata.inode(inode);
    if ((directory.mode & FILE_TYPE_MASK) !== FILE_TYPE.directory) return ENOTDIR;
    return this.#metadata
      .readDir(directory)
      .map(({ name, nid }) => ({ name, inode: nid, mode: this.#metadata.inode(nid).mode }));
  }

  readlink(inode: number): Reply<Uint8Array> {
    const link = this.#metadata.inode(inode);
    if ((link.mode & FILE_TYPE_MASK) !== FILE_TYPE.symlink) return EINVAL;
    return Buffer.from(this.#metadata.readlink(link), "latin1");
  }

  open(inode: number): Reply<FuseFile> {
    const file = this.#metadata.inode(inode);
    const type = file.mode & FILE_TYPE_MASK;
    if (type !== FILE_TYPE.regular) return type === FILE_TYPE.directory ? EISDIR : EINVAL;
    return new TreeFile(this.#metadata.data(file), this.#devices);
  }

  getxattr(inode: number, name: string): Reply<Uint8Array> {
    return this.#metadata.xattrs(inode).get(name) ?? ENODATA;
  }

  listxattr(inode: number): Reply<readonly string[]> {
    return [...this.#metadata.xattrs(inode).keys()];
  }

  statfs(): Reply<FuseStatfs> {
    return { blockBytes: 4096, blocks: 0, files: this.#metadata.inodeCount };
  }
}

export class TreeFile implements FuseFile {
  readonly #data: ErofsData;
  readonly #devices: readonly TreeDevice[];

  constructor(data: ErofsData, devices: readonly TreeDevice[]) {
    this.#data = data;
    this.#devices = devices;
  }

  async read(buffer: Buffer, offset: number): Promise<number | Errno> {
    let at = 0;
    for (const piece of piecesOf(this.#data, { start: offset, end: offset + buffer.length })) {
      if (piece.kind === "zeros") {
        buffer.fill(0, at, at + piece.length);
        at += piece.length;
      } else if (piece.kind === "bytes") {
        buffer.set(piece.bytes, at);
        at += piece.bytes.length;
      } else {
        const device = this.#devices[piece.device - 1];
        if (device === undefined) return EIO;
        const target = buffer.subarray(at, at + piece.length);
        const done = await device.read(target, piece.deviceOffset);
        // A device that ends inside a file contradicts the metadata.
        if (done !== piece.length) return EIO;
        at += piece.length;
      }
    }
    return at;
  }
}
