/**
 * Writes an EROFS metadata image: the same tree gives the same bytes.
 *
 * The file system's UUID is taken from the image's own digest: overlayfs tells lower file systems
 * apart by it, and keeps inode numbers over a copy-up only where it is not zero.
 */
import { createHash } from "node:crypto";
import { DaemonError } from "../base/errors.ts";
import { joinExtents, writeChunks } from "./chunks.ts";
import { crc32c } from "./crc32c.ts";
import { writeDirectory } from "./dirents.ts";
import {
  CHUNK_FORMAT_INDEXES,
  DATA_LAYOUT,
  DEVICE_SLOT,
  DEVICES_MAX,
  direntTypeOf,
  encodeDevice,
  EROFS_BLOCK_BITS,
  EROFS_BLOCK_BYTES,
  FEATURE_COMPAT_CHECKSUM,
  FEATURE_COMPAT_MTIME,
  FEATURE_INCOMPAT_CHUNKED_FILE,
  FEATURE_INCOMPAT_DEVICE_TABLE,
  INODE_SLOT_BYTES,
  isDeviceMode,
  NULL_BLOCK,
  SUPERBLOCK,
} from "./format.ts";
import { chunkIndexOffset, inodeBytes, layOut, type Layout, type NodeLayout } from "./layout.ts";
import type { ErofsInodeInput } from "./tree.ts";

export interface ErofsDevice {
  /** Bytes of the data device; the kernel sees whole blocks. */
  readonly bytes: number;
}

export interface WriteErofsOptions {
  /** Data devices; extents name them from 1. */
  readonly devices: readonly ErofsDevice[];
}

/** The image as one buffer, about 120 bytes a file; `invalid-argument` says what cannot be kept. */
export function writeErofs(root: ErofsInodeInput, options: WriteErofsOptions): Buffer {
  const deviceBytes = options.devices.map((device) => device.bytes);
  checkDevices(deviceBytes);
  const layout = layOut(root, deviceBytes);
  const image = Buffer.alloc(layout.totalBytes);
  const base = layout.sharedXattrsAt % EROFS_BLOCK_BYTES;
  for (const [index, node] of layout.nodes.entries()) {
    writeInode(image, layout, node, index);
    layout.xattrs.writeInline(image, node.at + inodeBytes(node.isExtended), index, base);
    writeData(image, layout, node, { index, deviceBytes });
  }
  layout.xattrs.writeShared(image, layout.sharedXattrsAt);
  writeDevices(image, deviceBytes);
  writeSuperblock(image, layout, deviceBytes.length);
  return image;
}

function checkDevices(deviceBytes: readonly number[]): void {
  if (deviceBytes.length > DEVICES_MAX) {
    throw new DaemonError("invalid-argument", `${deviceBytes.length} data devices`);
  }
  for (const bytes of deviceBytes) {
    // Block addresses have 32 bits, the last of which is the hole: 2 TiB.
    const isSound = Number.isSafeInteger(bytes) && bytes >= 0;
    if (!isSound || bytes > NULL_BLOCK * EROFS_BLOCK_BYTES) {
      throw new DaemonError("invalid-argument", `data device of ${bytes} bytes`);
    }
  }
}

function writeInode(image: Buffer, layout: Layout, node: NodeLayout, index: number): void {
  const { attributes } = inputOf(layout, index);
  const { at } = node;
  const xattrCount = node.xattrBytes === 0 ? 0 : (node.xattrBytes - 12) / 4 + 1;
  image.writeUInt16LE((node.isExtended ? 1 : 0) | (node.dataLayout << 1), at);
  image.writeUInt16LE(xattrCount, at + 2);
  image.writeUInt16LE(attributes.mode, at + 4);
  image.writeUInt32LE(inodeUnion(node, attributes), at + 16);
  image.writeUInt32LE(index + 1, at + 20);
  if (!node.isExtended) {
    image.writeUInt16LE(node.nlink, at + 6);
    image.writeUInt32LE(node.size, at + 8);
    image.writeUInt16LE(attributes.uid, at + 24);
    image.writeUInt16LE(attributes.gid, at + 26);
    return;
  }
  writeInt64(image, node.size, at + 8);
  image.writeUInt32LE(attributes.uid, at + 24);
  image.writeUInt32LE(attributes.gid, at + 28);
  writeInt64(image, attributes.mtimeSec, at + 32);
  image.writeUInt32LE(attributes.mtimeNsec, at + 40);
  image.writeUInt32LE(node.nlink, at + 44);
}

/** `i_u`: chunk format, first block or device number. */
function inodeUnion(node: NodeLayout, attributes: ErofsInodeInput["attributes"]): number {
  if (node.dataLayout === DATA_LAYOUT.chunkBased) return CHUNK_FORMAT_INDEXES | node.chunkBits;
  if (isDeviceMode(attributes.mode)) {
    return encodeDevice(attributes.rdevMajor, attributes.rdevMinor);
  }
  if (node.size === 0) return 0;
  return node.blockCount === 0 ? NULL_BLOCK : node.firstBlock;
}

function writeData(
  image: Buffer,
  layout: Layout,
  node: NodeLayout,
  context: { readonly index: number; readonly deviceBytes: readonly number[] },
): void {
  const inode = inputOf(layout, context.index);
  const { names } = layout.order;
  if (inode.data.kind === "extents") {
    if (node.chunkCount === 0) return;
    const plan = { bits: node.chunkBits, count: node.chunkCount };
    const joined = joinExtents(inode.data, context.deviceBytes);
    writeChunks(image, node.at + chunkIndexOffset(node), plan, joined);
    return;
  }
  if (node.size === 0) return;
  const entryNames = names[context.index];
  const bytes =
    entryNames === undefined
      ? inlineBytes(inode)
      : directoryData(layout, context.index, entryNames, node.size);
  const wholeBytes = Math.min(node.blockCount * EROFS_BLOCK_BYTES, bytes.length);
  bytes.copy(image, node.firstBlock * EROFS_BLOCK_BYTES, 0, wholeBytes);
  const tailAt = node.at + inodeBytes(node.isExtended) + node.xattrBytes;
  bytes.copy(image, tailAt, wholeBytes);
}

function inlineBytes(inode: ErofsInodeInput): Buffer {
  if (inode.data.kind !== "inline") return Buffer.alloc(0);
  const { bytes } = inode.data;
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function directoryData(
  layout: Layout,
  index: number,
  names: readonly string[],
  size: number,
): Buffer {
  const { order, nodes } = layout;
  const { entries } = inputOf(layout, index);
  const bytes = Buffer.alloc(size);
  writeDirectory(bytes, names, (name) => {
    const child = entries?.get(name);
    const known = child === undefined ? undefined : order.indexOf.get(child);
    const parent = order.parents[index] ?? 0;
    const target = known ?? (name === "." ? index : parent);
    const nid = (nodes[target]?.at ?? 0) / INODE_SLOT_BYTES;
    return { nid, type: direntTypeOf(inputOf(layout, target).attributes.mode) };
  });
  return bytes;
}

function writeDevices(image: Buffer, deviceBytes: readonly number[]): void {
  for (const [index, bytes] of deviceBytes.entries()) {
    const at = SUPERBLOCK.offset + SUPERBLOCK.bytes + index * DEVICE_SLOT.bytes;
    const blocks = Math.ceil(bytes / EROFS_BLOCK_BYTES);
    image.writeUInt32LE(blocks, at + DEVICE_SLOT.blocksAt);
  }
}

function writeSuperblock(image: Buffer, layout: Layout, deviceCount: number): void {
  const block = image.subarray(SUPERBLOCK.offset, SUPERBLOCK.offset + SUPERBLOCK.bytes);
  const devicesAt = SUPERBLOCK.offset + SUPERBLOCK.bytes;
  const devices = deviceCount > 0 ? FEATURE_INCOMPAT_DEVICE_TABLE : 0;
  block.writeUInt32LE(SUPERBLOCK.magic, SUPERBLOCK.magicAt);
  block.writeUInt32LE(FEATURE_COMPAT_CHECKSUM | FEATURE_COMPAT_MTIME, SUPERBLOCK.featureCompatAt);
  block.writeUInt8(EROFS_BLOCK_BITS, SUPERBLOCK.blockBitsAt);
  block.writeUInt16LE((layout.nodes[0]?.at ?? 0) / INODE_SLOT_BYTES, SUPERBLOCK.rootNidAt);
  writeInt64(block, layout.nodes.length, SUPERBLOCK.inodeCountAt);
  writeInt64(block, layout.buildTime.sec, SUPERBLOCK.buildTimeAt);
  block.writeUInt32LE(layout.buildTime.nsec, SUPERBLOCK.buildTimeNsecAt);
  block.writeUInt32LE(layout.totalBytes / EROFS_BLOCK_BYTES, SUPERBLOCK.blocksAt);
  const xattrBlock = Math.floor(layout.sharedXattrsAt / EROFS_BLOCK_BYTES);
  block.writeUInt32LE(xattrBlock, SUPERBLOCK.xattrBlockAt);
  block.writeUInt32LE(FEATURE_INCOMPAT_CHUNKED_FILE | devices, SUPERBLOCK.featureIncompatAt);
  block.writeUInt16LE(deviceCount, SUPERBLOCK.extraDevicesAt);
  const slot = deviceCount > 0 ? devicesAt / DEVICE_SLOT.bytes : 0;
  block.writeUInt16LE(slot, SUPERBLOCK.deviceSlotOffsetAt);
  contentUuid(image).copy(block, SUPERBLOCK.uuidAt);
  // The checksum covers the superblock's whole block behind the first 1,024 bytes.
  const covered = image.subarray(SUPERBLOCK.offset, SUPERBLOCK.offset + EROFS_BLOCK_BYTES);
  block.writeUInt32LE(crc32c(0xffffffff, covered), SUPERBLOCK.checksumAt);
}

/** RFC 9562 version 8 (vendor-defined): the first bits of the image's sha256. */
function contentUuid(image: Buffer): Buffer {
  const uuid = createHash("sha256").update(image).digest().subarray(0, 16);
  uuid.writeUInt8((uuid.readUInt8(6) & 0x0f) | 0x80, 6);
  uuid.writeUInt8((uuid.readUInt8(8) & 0x3f) | 0x80, 8);
  return uuid;
}

function inputOf(layout: Layout, index: number): ErofsInodeInput {
  const inode = layout.order.inodes[index];
  if (inode === undefined) throw new DaemonError("internal", `inode ${index} was not planned`);
  return inode;
}

/** Two's complement of 64 bits; exact for every safe integer. */
function writeInt64(target: Buffer, value: number, at: number): void {
  const high = Math.floor(value / 2 ** 32);
  target.writeUInt32LE(value - high * 2 ** 32, at);
  target.writeInt32LE(high, at + 4);
}
