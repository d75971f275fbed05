/** A file system of one folder with one file, `data`: a layer's data device. */
import { EIO, EISDIR, ENOENT, ENOTDIR } from "../fuse/index.ts";
import type { FuseAttributes, FuseFile, FuseFileSystem, Reply } from "../fuse/index.ts";
import type { LayerDevice } from "./layer-device.ts";

const DATA_FILE_NAME = "data";
const ROOT_INODE = 1;
const DATA_INODE = 2;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;

function attributes(inode: number, mode: number, size: number): FuseAttributes {
  return {
    inode,
    mode,
    nlink: inode === ROOT_INODE ? 2 : 1,
    uid: 0,
    gid: 0,
    rdevMajor: 0,
    rdevMinor: 0,
    size,
    mtimeSec: 0,
    mtimeNsec: 0,
  };
}

export class DataFileSystem implements FuseFileSystem {
  readonly rootInode = ROOT_INODE;
  readonly #device: LayerDevice;
  readonly #file: FuseFile;

  constructor(device: LayerDevice) {
    this.#device = device;
    this.#file = { read: (buffer, offset) => device.read(buffer, offset) };
  }

  lookup(parent: number, name: string): Reply<number> {
    if (parent !== ROOT_INODE) return ENOTDIR;
    return name === DATA_FILE_NAME ? DATA_INODE : ENOENT;
  }

  getattr(inode: number): Reply<FuseAttributes> {
    if (inode === ROOT_INODE) return attributes(inode, S_IFDIR | 0o700, 0);
    return attributes(inode, S_IFREG | 0o400, this.#device.size);
  }

  readdir(inode: number): Reply<readonly { name: string; inode: number; mode: number }[]> {
    if (inode !== ROOT_INODE) return ENOTDIR;
    return [{ name: DATA_FILE_NAME, inode: DATA_INODE, mode: S_IFREG }];
  }

  open(inode: number): Reply<FuseFile> {
    if (inode === ROOT_INODE) return EISDIR;
    return inode === DATA_INODE ? this.#file : EIO;
  }
}
