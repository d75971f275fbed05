/**
 * What the writer takes: a tree of inodes, directories being maps from names to inodes.
 *
 * File names, symlink targets and xattr names are byte strings (one char = one byte).
 */
import { FILE_TYPE, isDirectoryMode } from "./format.ts";

export interface ErofsAttributes {
  /** Full st_mode, with the file type. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** May be negative. */
  readonly mtimeSec: number;
  /** 0 to 999,999,999, always forward from `mtimeSec`. */
  readonly mtimeNsec: number;
  /** Of character and block devices; 0 for everything else. */
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  /** By full name ("user.x"); the writer drops names that the kernel would not show. */
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

/** A piece of a file that lies on a data device as it is. */
export interface ErofsExtent {
  /** A multiple of 512. */
  readonly fileOffset: number;
  /** A multiple of 512, except where the extent ends at the end of the file. */
  readonly length: number;
  /** 1 is the first data device. */
  readonly device: number;
  /** A multiple of 512. */
  readonly deviceOffset: number;
}

/** Adds an extent behind the others; one that continues the last becomes one with it. */
export function appendExtent(extents: ErofsExtent[], extent: ErofsExtent): void {
  const last = extents.at(-1);
  const isContinued =
    last?.device === extent.device &&
    last.fileOffset + last.length === extent.fileOffset &&
    last.deviceOffset + last.length === extent.deviceOffset;
  if (isContinued) extents[extents.length - 1] = { ...last, length: last.length + extent.length };
  else extents.push(extent);
}

/** `inline` is kept in the image (symlink targets, small files); holes of `extents` are zeros. */
export type ErofsData =
  | { readonly kind: "none" }
  | { readonly kind: "inline"; readonly bytes: Uint8Array }
  | { readonly kind: "extents"; readonly size: number; readonly extents: readonly ErofsExtent[] };

export const NO_DATA: ErofsData = { kind: "none" };
export const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map();

/** One inode; placed under several names (or in several directories) it is a hard link. */
export class ErofsInodeInput {
  attributes: ErofsAttributes;
  data: ErofsData;
  /** Defined for directories only. */
  readonly entries: Map<string, ErofsInodeInput> | undefined;
  /** Overrides the number of links that the writer counts. */
  nlink: number | undefined;

  constructor(
    attributes: ErofsAttributes,
    options: { readonly data?: ErofsData; readonly nlink?: number | undefined } = {},
  ) {
    this.attributes = attributes;
    this.data = options.data ?? NO_DATA;
    this.entries = isDirectoryMode(attributes.mode) ? new Map() : undefined;
    this.nlink = options.nlink;
  }
}

/** A directory 0755 of root, from the start of time: what nobody described. */
export function defaultDirectory(): ErofsAttributes {
  return {
    mode: FILE_TYPE.directory | 0o755,
    uid: 0,
    gid: 0,
    mtimeSec: 0,
    mtimeNsec: 0,
    rdevMajor: 0,
    rdevMinor: 0,
    xattrs: NO_XATTRS,
  };
}

export function symlinkData(target: string): ErofsData {
  return { kind: "inline", bytes: Buffer.from(target, "latin1") };
}
