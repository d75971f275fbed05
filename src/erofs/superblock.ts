/** Parses and checks the superblock and the device table; what all other parsing starts from. */
import { crc32c } from "./crc32c.ts";
import {
  dataLoss,
  DEVICE_SLOT,
  DEVICES_MAX,
  FEATURE_COMPAT_CHECKSUM,
  FEATURE_INCOMPAT_DEVICE_TABLE,
  FEATURE_INCOMPAT_KNOWN,
  IMAGE_BYTES_MAX,
  INODE_SLOT_BYTES,
  SUPERBLOCK,
} from "./format.ts";

/** Block sizes that some kernel takes: a sector to the largest page. */
const BLOCK_BITS_MIN = 9;
const BLOCK_BITS_MAX = 16;

/** An image as its superblock describes it. */
export interface ErofsImage {
  readonly bytes: Buffer;
  readonly blockBytes: number;
  /** Where nid 0 would be. */
  readonly metaAt: number;
  /** Where shared xattr 0 would be. */
  readonly xattrsAt: number;
  readonly rootNid: number;
  readonly inodeCount: number;
  readonly buildTimeSec: number;
  readonly buildTimeNsec: number;
  /** Bytes of each data device, whole blocks. */
  readonly devices: readonly number[];
  /** A chunk's device id counts only in these bits. */
  readonly deviceMask: number;
}

/** The bytes of a range, as a view; `data-loss` where they lie outside. */
export function bytesAt(bytes: Buffer, offset: number, length: number): Buffer {
  const isInside = Number.isSafeInteger(offset) && offset >= 0 && length >= 0;
  if (!isInside || offset + length > bytes.length) {
    throw dataLoss(`bytes ${offset}+${length} lie outside the image of ${bytes.length}`);
  }
  return bytes.subarray(offset, offset + length);
}

export function parseSuperblock(bytes: Buffer): ErofsImage {
  if (bytes.length > IMAGE_BYTES_MAX) throw dataLoss(`${bytes.length} bytes are too many`);
  const head = bytesAt(bytes, SUPERBLOCK.offset, SUPERBLOCK.bytes);
  if (head.readUInt32LE(SUPERBLOCK.magicAt) !== SUPERBLOCK.magic) throw dataLoss("no magic number");
  const blockBits = head.readUInt8(SUPERBLOCK.blockBitsAt);
  const incompat = head.readUInt32LE(SUPERBLOCK.featureIncompatAt);
  if (blockBits < BLOCK_BITS_MIN || blockBits > BLOCK_BITS_MAX) {
    throw dataLoss(`block size of 2^${blockBits}`);
  }
  if ((incompat & ~FEATURE_INCOMPAT_KNOWN) !== 0) {
    throw dataLoss(`unknown features 0x${incompat.toString(16)}`);
  }
  if (head.readUInt8(SUPERBLOCK.dirBlockBitsAt) !== 0) throw dataLoss("unusual directory blocks");
  const blockBytes = 2 ** blockBits;
  checkChecksum(bytes, head, blockBytes);
  const hasDevices = (incompat & FEATURE_INCOMPAT_DEVICE_TABLE) !== 0;
  const devices = hasDevices ? parseDevices(bytes, head, blockBytes) : [];
  const metaAt = head.readUInt32LE(SUPERBLOCK.metaBlockAt) * blockBytes;
  const rootNid = head.readUInt16LE(SUPERBLOCK.rootNidAt);
  if (metaAt + rootNid * INODE_SLOT_BYTES >= bytes.length) throw dataLoss("no root inode");
  return {
    bytes,
    blockBytes,
    metaAt,
    xattrsAt: head.readUInt32LE(SUPERBLOCK.xattrBlockAt) * blockBytes,
    rootNid,
    inodeCount: safeInt64(head, SUPERBLOCK.inodeCountAt),
    buildTimeSec: safeInt64(head, SUPERBLOCK.buildTimeAt),
    buildTimeNsec: head.readUInt32LE(SUPERBLOCK.buildTimeNsecAt),
    devices,
    deviceMask: 2 ** Math.ceil(Math.log2(devices.length + 1)) - 1,
  };
}

/** The checksum covers the rest of the superblock's block (or of the block behind 1,024). */
function checkChecksum(bytes: Buffer, head: Buffer, blockBytes: number): void {
  const features = head.readUInt32LE(SUPERBLOCK.featureCompatAt);
  if ((features & FEATURE_COMPAT_CHECKSUM) === 0) throw dataLoss("no checksum");
  const length = blockBytes > SUPERBLOCK.offset ? blockBytes - SUPERBLOCK.offset : blockBytes;
  const covered = Buffer.from(bytesAt(bytes, SUPERBLOCK.offset, length));
  covered.writeUInt32LE(0, SUPERBLOCK.checksumAt);
  if (crc32c(0xffffffff, covered) !== head.readUInt32LE(SUPERBLOCK.checksumAt)) {
    throw dataLoss("wrong checksum of the superblock");
  }
}

function parseDevices(bytes: Buffer, head: Buffer, blockBytes: number): number[] {
  const count = head.readUInt16LE(SUPERBLOCK.extraDevicesAt);
  if (count > DEVICES_MAX) throw dataLoss(`${count} data devices`);
  const offset = head.readUInt16LE(SUPERBLOCK.deviceSlotOffsetAt) * DEVICE_SLOT.bytes;
  const table = bytesAt(bytes, offset, count * DEVICE_SLOT.bytes);
  const devices: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const blocks = table.readUInt32LE(index * DEVICE_SLOT.bytes + DEVICE_SLOT.blocksAt);
    devices.push(blocks * blockBytes);
  }
  return devices;
}

/** A signed number of 64 bits; those beyond the safe integers belong to no sound image. */
export function safeInt64(bytes: Buffer, at: number): number {
  const number = bytes.readInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);
  if (!Number.isSafeInteger(number)) throw dataLoss(`number ${number} out of range`);
  return number;
}
