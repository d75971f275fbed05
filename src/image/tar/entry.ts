/** What the tar parser reports: one archive member with everything that headers say about it. */

export type TarEntryType =
  "block-device" | "char-device" | "directory" | "fifo" | "file" | "hard-link" | "symlink";

/** A run of data inside a sparse file; what lies between runs reads as zeros. */
export interface SparseSegment {
  readonly fileOffset: number;
  readonly length: number;
}

/** Paths, link targets and xattr names are byte strings: one char (0…255) is one byte. */
export interface TarEntry {
  readonly type: TarEntryType;
  /** As written in the archive, not normalised. */
  readonly path: string;
  readonly linkPath: string;
  /** The low twelve bits: set-id, sticky and permissions. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  /** Bytes of the file as a reader sees it; 0 for all but files. */
  readonly size: number;
  /** Tar offset of the first stored byte; always a multiple of 512. */
  readonly dataOffset: number;
  /** Stored one after the other from `dataOffset`; absent = one run of `size` bytes. */
  readonly sparse: readonly SparseSegment[] | undefined;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
  /** Tar offset of the entry's own header, for messages. */
  readonly headerOffset: number;
}
