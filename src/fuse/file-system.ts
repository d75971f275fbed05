/**
 * What a read-only file system is to a FUSE session: inodes, no paths. Methods may answer at once
 * or by a promise; they answer a value or an `Errno`. A throw or rejection becomes EIO.
 * Names are byte strings: one character per byte (latin1).
 */
import type { Errno } from "./errno.ts";

export type Awaitable<T> = T | Promise<T>;
export type Reply<T> = Awaitable<T | Errno>;

export interface FuseAttributes {
  /** 32 bits under libfuse 2. */
  readonly inode: number;
  /** Type and permissions, as st_mode. */
  readonly mode: number;
  readonly nlink: number;
  readonly uid: number;
  readonly gid: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  /** Bytes. */
  readonly size: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
}

export interface FuseDirEntry {
  readonly name: string;
  readonly inode: number;
  /** Only the type bits matter. */
  readonly mode: number;
}

export interface FuseStatfs {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly files: number;
}

export interface FuseFile {
  /**
   * Fills `buffer` from `offset`. Answers the bytes read: all that were asked for, fewer only at
   * the end of the file. The buffer belongs to libfuse: valid until the answer, never after.
   */
  read(buffer: Buffer, offset: number): Reply<number>;
  close?(): void;
}

export interface FuseFileSystem {
  readonly rootInode: number;
  lookup(parent: number, name: string): Reply<number>;
  getattr(inode: number): Reply<FuseAttributes>;
  readdir(inode: number): Reply<readonly FuseDirEntry[]>;
  open(inode: number): Reply<FuseFile>;
  readlink?(inode: number): Reply<Uint8Array>;
  getxattr?(inode: number, name: string): Reply<Uint8Array>;
  listxattr?(inode: number): Reply<readonly string[]>;
  statfs?(): Reply<FuseStatfs>;
}
