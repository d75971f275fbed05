/** Parses inodes, their data's place, and their xattrs; nothing that is read is believed. */
import {
  CHUNK_BITS_MAX,
  CHUNK_FORMAT_INDEXES,
  CHUNK_INDEX_BYTES,
  CHUNKS_PER_FILE_MAX,
  COMPACT_INODE_BYTES,
  DATA_LAYOUT,
  dataLoss,
  decodeDevice,
  direntTypeOf,
  EXTENDED_INODE_BYTES,
  FILE_TYPE,
  FILE_TYPE_MASK,
  INODE_SLOT_BYTES,
  isDeviceMode,
  NULL_BLOCK,
  roundUp,
  XATTR_ALIGN,
  XATTR_BYTES_PER_INODE_MAX,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
} from "./format.ts";
import { bytesAt, safeInt64, type ErofsImage } from "./superblock.ts";
import { appendExtent, NO_XATTRS, type ErofsExtent } from "./tree.ts";
import { decodeXattrName } from "./xattr-names.ts";

/** An inode without its xattrs and data. */
export interface ErofsInode {
  /** Also the inode number that the kernel shows. */
  readonly nid: number;
  /** Full st_mode. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeSec: number;
  readonly mtimeNsec: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly nlink: number;
  readonly size: number;
  /** What the parser needs to go on; nobody else's business. */
  readonly place: InodePlace;
}

interface InodePlace {
  readonly dataLayout: number;
  readonly xattrsAt: number;
  readonly xattrBytes: number;
  /** `i_u`: first block, or chunk format. */
  readonly union: number;
}

const NO_DEVICE = { major: 0, minor: 0 };

export function parseInode(image: ErofsImage, nid: number): ErofsInode {
  const at = image.metaAt + nid * INODE_SLOT_BYTES;
  if (!Number.isSafeInteger(nid) || nid < 0) throw dataLoss(`nid ${nid}`);
  const isLast = image.bytes.length - at < EXTENDED_INODE_BYTES;
  const bytes = bytesAt(image.bytes, at, isLast ? COMPACT_INODE_BYTES : EXTENDED_INODE_BYTES);
  const format = bytes.readUInt16LE(0);
  const isExtended = (format & 1) === 1;
  if (format >>> 4 !== 0) throw dataLoss(`inode ${nid} of unknown format 0x${format.toString(16)}`);
  if (isExtended && bytes.length < EXTENDED_INODE_BYTES) throw dataLoss(`inode ${nid} is cut`);
  const mode = bytes.readUInt16LE(4);
  if (direntTypeOf(mode) === 0) throw dataLoss(`inode ${nid} has mode 0${mode.toString(8)}`);
  const union = bytes.readUInt32LE(16);
  const rdev = isDeviceMode(mode) ? decodeDevice(union) : NO_DEVICE;
  const xattrCount = bytes.readUInt16LE(2);
  const inodeBytes = isExtended ? EXTENDED_INODE_BYTES : COMPACT_INODE_BYTES;
  const fields = isExtended ? extendedFields(bytes) : compactFields(bytes, image);
  if (fields.mtimeNsec > 999_999_999) throw dataLoss(`inode ${nid} has a malformed time`);
  if (fields.size < 0) throw dataLoss(`inode ${nid} has ${fields.size} bytes`);
  return {
    nid,
    mode,
    uid: fields.uid,
    gid: fields.gid,
    mtimeSec: fields.mtimeSec,
    mtimeNsec: fields.mtimeNsec,
    rdevMajor: rdev.major,
    rdevMinor: rdev.minor,
    nlink: fields.nlink,
    size: fields.size,
    place: {
      dataLayout: (format >>> 1) & 7,
      xattrsAt: at + inodeBytes,
      xattrBytes: xattrCount === 0 ? 0 : XATTR_HEADER_BYTES + 4 * (xattrCount - 1),
      union,
    },
  };
}

type Fields = Pick<ErofsInode, "uid" | "gid" | "mtimeSec" | "mtimeNsec" | "nlink" | "size">;

function compactFields(bytes: Buffer, image: ErofsImage): Fields {
  return {
    nlink: bytes.readUInt16LE(6),
    size: bytes.readUInt32LE(8),
    uid: bytes.readUInt16LE(24),
    gid: bytes.readUInt16LE(26),
    mtimeSec: image.buildTimeSec,
    mtimeNsec: image.buildTimeNsec,
  };
}

function extendedFields(bytes: Buffer): Fields {
  return {
    nlink: bytes.readUInt32LE(44),
    size: safeInt64(bytes, 8),
    uid: bytes.readUInt32LE(24),
    gid: bytes.readUInt32LE(28),
    mtimeSec: safeInt64(bytes, 32),
    mtimeNsec: bytes.readUInt32LE(40),
  };
}

/** Number of blocks of flat data; the last may be shorter. */
export function blockCount(image: ErofsImage, inode: ErofsInode): number {
  return Math.ceil(inode.size / image.blockBytes);
}

/** Block `index` of flat data, which lies in the image itself. */
export function flatBlock(image: ErofsImage, inode: ErofsInode, index: number): Buffer {
  const { bytes, blockBytes } = image;
  const { dataLayout, union, xattrsAt, xattrBytes } = inode.place;
  const start = index * blockBytes;
  const length = Math.min(blockBytes, inode.size - start);
  // Checked for the whole file, so that a size is believed only where there is room for it.
  if (inode.size > bytes.length) throw dataLoss(`inode ${inode.nid} is larger than the image`);
  if (dataLayout === DATA_LAYOUT.flatInline && start + length === inode.size) {
    const offset = xattrsAt + xattrBytes;
    if ((offset % blockBytes) + length > blockBytes) {
      throw dataLoss(`data of inode ${inode.nid} crosses a block`);
    }
    return bytesAt(bytes, offset, length);
  }
  if (dataLayout !== DATA_LAYOUT.flatPlain && dataLayout !== DATA_LAYOUT.flatInline) {
    throw dataLoss(`inode ${inode.nid} has data layout ${dataLayout}`);
  }
  return bytesAt(bytes, union * blockBytes + start, length);
}

export function parseFlatData(image: ErofsImage, inode: ErofsInode, bytesMax: number): Buffer {
  if (inode.size > bytesMax) throw dataLoss(`inode ${inode.nid} has ${inode.size} bytes`);
  const parts: Buffer[] = [];
  for (let index = 0; index < blockCount(image, inode); index += 1) {
    parts.push(flatBlock(image, inode, index));
  }
  return Buffer.concat(parts);
}

export function isChunkBased(inode: ErofsInode): boolean {
  const isRegular = (inode.mode & FILE_TYPE_MASK) === FILE_TYPE.regular;
  return isRegular && inode.place.dataLayout === DATA_LAYOUT.chunkBased;
}

/** The pieces of a chunk-based file on the data devices, neighbours joined, holes left out. */
export function parseExtents(image: ErofsImage, inode: ErofsInode): ErofsExtent[] {
  const format = inode.place.union & 0xffff;
  const bits = format & CHUNK_BITS_MAX;
  if ((format & ~CHUNK_BITS_MAX) !== CHUNK_FORMAT_INDEXES) {
    throw dataLoss(`inode ${inode.nid} has chunk format 0x${format.toString(16)}`);
  }
  const chunkBytes = image.blockBytes * 2 ** bits;
  const count = Math.ceil(inode.size / chunkBytes);
  if (count > CHUNKS_PER_FILE_MAX) throw dataLoss(`inode ${inode.nid} has ${count} chunks`);
  const { xattrsAt, xattrBytes } = inode.place;
  const offset = roundUp(xattrsAt + xattrBytes, CHUNK_INDEX_BYTES);
  const indexes = bytesAt(image.bytes, offset, count * CHUNK_INDEX_BYTES);
  const extents: ErofsExtent[] = [];
  for (let chunk = 0; chunk < count; chunk += 1) {
    const extent = parseChunk(image, indexes, chunk, { chunkBytes, size: inode.size });
    if (extent !== undefined) appendExtent(extents, extent);
  }
  return extents;
}

function parseChunk(
  image: ErofsImage,
  indexes: Buffer,
  chunk: number,
  file: { readonly chunkBytes: number; readonly size: number },
): ErofsExtent | undefined {
  const at = chunk * CHUNK_INDEX_BYTES;
  const block = indexes.readUInt32LE(at + 4);
  if (block === NULL_BLOCK) return undefined;
  const device = indexes.readUInt16LE(at + 2) & image.deviceMask;
  const fileOffset = chunk * file.chunkBytes;
  const length = Math.min(file.chunkBytes, file.size - fileOffset);
  const deviceOffset = block * image.blockBytes;
  const deviceBytes = image.devices[device - 1];
  if (deviceBytes === undefined || deviceOffset + length > deviceBytes) {
    throw dataLoss(`data at ${deviceOffset}+${length} of device ${device}, which ends before`);
  }
  return { fileOffset, length, device, deviceOffset };
}

/** Values are views into the image. */
export function parseXattrs(image: ErofsImage, inode: ErofsInode): ReadonlyMap<string, Uint8Array> {
  const { xattrsAt, xattrBytes } = inode.place;
  if (xattrBytes === 0) return NO_XATTRS;
  const xattrs = new Map<string, Uint8Array>();
  const bytes = bytesAt(image.bytes, xattrsAt, xattrBytes);
  const sharedCount = bytes.readUInt8(4);
  const inlineAt = XATTR_HEADER_BYTES + 4 * sharedCount;
  if (inlineAt > xattrBytes) throw dataLoss(`xattrs of inode ${inode.nid} are cut`);
  const budget = { left: XATTR_BYTES_PER_INODE_MAX };
  for (let at = inlineAt; at < xattrBytes;) {
    at += addXattr(xattrs, bytes.subarray(at), budget);
  }
  for (let index = 0; index < sharedCount; index += 1) {
    const id = bytes.readUInt32LE(XATTR_HEADER_BYTES + 4 * index);
    const offset = image.xattrsAt + id * XATTR_ALIGN;
    const head = bytesAt(image.bytes, offset, XATTR_ENTRY_BYTES);
    addXattr(xattrs, bytesAt(image.bytes, offset, entryBytes(head)), budget);
  }
  return xattrs;
}

function entryBytes(head: Buffer): number {
  return XATTR_ENTRY_BYTES + head.readUInt8(0) + head.readUInt16LE(2);
}

/** Returns the bytes that the entry takes, padding included. */
function addXattr(
  xattrs: Map<string, Uint8Array>,
  bytes: Buffer,
  budget: { left: number },
): number {
  const length = bytes.length < XATTR_ENTRY_BYTES ? Infinity : entryBytes(bytes);
  if (length > bytes.length) throw dataLoss("an xattr is cut");
  const nameEnd = XATTR_ENTRY_BYTES + bytes.readUInt8(0);
  const suffix = bytes.toString("latin1", XATTR_ENTRY_BYTES, nameEnd);
  const name = decodeXattrName(bytes.readUInt8(1), suffix);
  if (name === undefined || xattrs.has(name)) throw dataLoss("an xattr has a malformed name");
  budget.left -= name.length + length - nameEnd;
  if (budget.left < 0) throw dataLoss("the xattrs of an inode are too large");
  xattrs.set(name, bytes.subarray(nameEnd, length));
  return roundUp(length, XATTR_ALIGN);
}
