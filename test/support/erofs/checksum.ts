/** The superblock's checksum, made right after a change: whoever makes a hostile image does so. */
import { crc32c } from "../../../src/erofs/crc32c.ts";

const SUPERBLOCK_AT = 1024;
const CHECKSUM_AT = SUPERBLOCK_AT + 4;
const BLOCK_BITS_AT = SUPERBLOCK_AT + 12;

/** Over the rest of the superblock's block, whatever size the image now claims for a block. */
export function fixChecksum(image: Buffer): Buffer {
  const blockBytes = 2 ** Math.min(image[BLOCK_BITS_AT] ?? 9, 16);
  const length = blockBytes > SUPERBLOCK_AT ? blockBytes - SUPERBLOCK_AT : blockBytes;
  if (image.length < SUPERBLOCK_AT + length || length < 128) return image;
  image.writeUInt32LE(0, CHECKSUM_AT);
  const covered = image.subarray(SUPERBLOCK_AT, SUPERBLOCK_AT + length);
  image.writeUInt32LE(crc32c(0xffffffff, covered), CHECKSUM_AT);
  return image;
}
