/**
 * The EROFS on-disk format as far as metadata images need it: offsets, flags and limits.
 *
 * Source: the kernel's `fs/erofs/erofs_fs.h` and its documentation (erofs.docs.kernel.org,
 * "Core on-disk format"). All numbers are little endian.
 */
import { DaemonError } from "../base/errors.ts";

/** 512-byte blocks, so that tar data (512-aligned) is addressed in place. */
export const EROFS_BLOCK_BITS = 9;
export const EROFS_BLOCK_BYTES = 512;

/** `struct erofs_super_block`: 128 bytes at 1024; the bytes before belong to nobody. */
export const SUPERBLOCK = {
  offset: 1024,
  bytes: 128,
  magic: 0xe0f5e1e2,
  magicAt: 0,
  checksumAt: 4,
  featureCompatAt: 8,
  blockBitsAt: 12,
  extSlotsAt: 13,
  rootNidAt: 14,
  inodeCountAt: 16,
  buildTimeAt: 24,
  buildTimeNsecAt: 32,
  blocksAt: 36,
  metaBlockAt: 40,
  xattrBlockAt: 44,
  uuidAt: 48,
  featureIncompatAt: 80,
  extraDevicesAt: 86,
  deviceSlotOffsetAt: 88,
  dirBlockBitsAt: 90,
} as const;

export const FEATURE_COMPAT_CHECKSUM = 0x1;
/** Extended inodes hold the mtime, not the ctime. */
export const FEATURE_COMPAT_MTIME = 0x2;
/** Harmless to a reader without compression; mkfs.erofs sets it always. */
export const FEATURE_INCOMPAT_ZERO_PADDING = 0x1;
export const FEATURE_INCOMPAT_CHUNKED_FILE = 0x4;
export const FEATURE_INCOMPAT_DEVICE_TABLE = 0x8;
export const FEATURE_INCOMPAT_KNOWN =
  FEATURE_INCOMPAT_ZERO_PADDING | FEATURE_INCOMPAT_CHUNKED_FILE | FEATURE_INCOMPAT_DEVICE_TABLE;

/** `struct erofs_deviceslot`: blocks at 64, address in a unified space (unused here) at 68. */
export const DEVICE_SLOT = { bytes: 128, blocksAt: 64 } as const;

/** A node id (nid) is the inode's offset in units of 32 bytes. */
export const INODE_SLOT_BYTES = 32;
export const COMPACT_INODE_BYTES = 32;
export const EXTENDED_INODE_BYTES = 64;

/** `i_format` bits 1 to 3. */
export const DATA_LAYOUT = { flatPlain: 0, flatInline: 2, chunkBased: 4 } as const;

/** A chunk is `block << bits`; bits are 5 wide. */
export const CHUNK_BITS_MAX = 31;
export const CHUNK_FORMAT_INDEXES = 0x20;
export const CHUNK_INDEX_BYTES = 8;
/** A chunk that reads as zeros, and the address that no block may have. */
export const NULL_BLOCK = 0xffffffff;

export const DIRENT_BYTES = 12;
export const NAME_BYTES_MAX = 255;
/** PATH_MAX without the terminating zero: the longest target that readlink can return. */
export const SYMLINK_BYTES_MAX = 4095;

export const XATTR_HEADER_BYTES = 12;
export const XATTR_ENTRY_BYTES = 4;
export const XATTR_ALIGN = 4;
export const XATTR_VALUE_BYTES_MAX = 0xffff;
export const XATTR_SHARED_PER_INODE_MAX = 255;
/** `i_xattr_icount` is 16 bits of 4-byte units. */
export const XATTR_INLINE_BYTES_MAX = XATTR_HEADER_BYTES + 4 * (0xffff - 1);
/** Names and values of one inode together; ext4 allows far less. */
export const XATTR_BYTES_PER_INODE_MAX = 1024 * 1024;

/** overlayfs takes 500 lower layers at most; EROFS itself would take 65,535 devices. */
export const DEVICES_MAX = 1024;
/** About ten million files; also what keeps offsets and block numbers far from their limits. */
export const IMAGE_BYTES_MAX = 1024 ** 3;
/** 32 MiB of chunk indexes: a sparse file of 16 GiB that is cut at 4 KiB borders. */
export const CHUNKS_PER_FILE_MAX = 4 * 1024 * 1024;
/** Data kept in the image itself; for symlinks and small things that no device holds. */
export const INLINE_DATA_BYTES_MAX = 16 * 1024 * 1024;

export const FILE_TYPE_MASK = 0o170000;
export const FILE_TYPE = {
  fifo: 0o010000,
  characterDevice: 0o020000,
  directory: 0o040000,
  blockDevice: 0o060000,
  regular: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
} as const;

/** Directory entry types are the kernel's generic `FT_*` numbers, here by `mode >> 12`. */
const DIRENT_TYPE_OF_MODE: readonly number[] = [0, 5, 3, 0, 2, 0, 4, 0, 1, 0, 7, 0, 6, 0, 0, 0];

/** 0 where the mode has no valid file type. */
export function direntTypeOf(mode: number): number {
  return DIRENT_TYPE_OF_MODE[(mode & FILE_TYPE_MASK) >>> 12] ?? 0;
}

export function isDirectoryMode(mode: number): boolean {
  return (mode & FILE_TYPE_MASK) === FILE_TYPE.directory;
}

export function isDeviceMode(mode: number): boolean {
  const type = mode & FILE_TYPE_MASK;
  return type === FILE_TYPE.characterDevice || type === FILE_TYPE.blockDevice;
}

/** The kernel's `new_encode_dev`: 12 bits of major, 20 bits of minor, minor split around it. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

export function decodeDevice(value: number): { readonly major: number; readonly minor: number } {
  return { major: (value >>> 8) & 0xfff, minor: (value & 0xff) | ((value >>> 12) & 0xfff00) };
}

export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

export function dataLoss(message: string): DaemonError {
  return new DaemonError("data-loss", `erofs image: ${message}`);
}
