/**
 * Chunk indexes of a file: one chunk where the data is in one piece, else the largest chunk size
 * at whose borders every piece and every hole begins and ends.
 */
import { DaemonError } from "../base/errors.ts";
import {
  CHUNK_BITS_MAX,
  CHUNK_INDEX_BYTES,
  CHUNKS_PER_FILE_MAX,
  EROFS_BLOCK_BYTES,
  NULL_BLOCK,
} from "./format.ts";
import { appendExtent, type ErofsExtent } from "./tree.ts";

export interface FileExtents {
  readonly size: number;
  readonly extents: readonly ErofsExtent[];
}

export interface ChunkPlan {
  /** Chunk size is `EROFS_BLOCK_BYTES << bits`. */
  readonly bits: number;
  readonly count: number;
}

function invalid(message: string): DaemonError {
  return new DaemonError("invalid-argument", message);
}

function checkExtent(
  extent: ErofsExtent,
  file: FileExtents,
  deviceBytes: readonly number[],
  from: number,
): void {
  const { fileOffset, length, device, deviceOffset } = extent;
  const end = fileOffset + length;
  const isAligned =
    fileOffset % EROFS_BLOCK_BYTES === 0 &&
    deviceOffset % EROFS_BLOCK_BYTES === 0 &&
    (end % EROFS_BLOCK_BYTES === 0 || end === file.size);
  if (!isAligned) throw invalid(`extent at ${fileOffset} is not aligned to ${EROFS_BLOCK_BYTES}`);
  if (!(fileOffset >= from && length > 0 && end <= file.size)) {
    throw invalid(`extent ${fileOffset}+${length} overlaps or leaves the file of ${file.size}`);
  }
  const bytes = deviceBytes[device - 1];
  if (bytes === undefined) throw invalid(`extent on device ${device} of ${deviceBytes.length}`);
  if (!(deviceOffset >= 0 && deviceOffset + length <= bytes)) {
    throw invalid(`extent ${deviceOffset}+${length} leaves device ${device} of ${bytes} bytes`);
  }
}

/** Checks extents and joins neighbours that continue each other; drops empty ones. */
export function joinExtents(file: FileExtents, deviceBytes: readonly number[]): ErofsExtent[] {
  const joined: ErofsExtent[] = [];
  let from = 0;
  for (const extent of file.extents) {
    if (extent.length === 0) continue;
    checkExtent(extent, file, deviceBytes, from);
    from = extent.fileOffset + extent.length;
    appendExtent(joined, extent);
  }
  return joined;
}

/** How often two divides the number; `CHUNK_BITS_MAX` for 0. */
function trailingZeros(value: number): number {
  let bits = 0;
  for (let rest = value; bits < CHUNK_BITS_MAX && rest % 2 === 0; rest /= 2) bits += 1;
  return bits;
}

export function planChunks(
  size: number,
  joined: readonly Pick<ErofsExtent, "fileOffset" | "length">[],
): ChunkPlan {
  if (size === 0) return { bits: 0, count: 0 };
  const blocks = Math.ceil(size / EROFS_BLOCK_BYTES);
  let bits = 0;
  while (bits < CHUNK_BITS_MAX && 2 ** bits < blocks) bits += 1;
  for (const { fileOffset, length } of joined) {
    bits = Math.min(bits, trailingZeros(fileOffset / EROFS_BLOCK_BYTES));
    const end = fileOffset + length;
    if (end < size) bits = Math.min(bits, trailingZeros(end / EROFS_BLOCK_BYTES));
  }
  const count = Math.ceil(blocks / 2 ** bits);
  if (count > CHUNKS_PER_FILE_MAX) {
    throw invalid(`file of ${size} bytes needs ${count} chunks, more than ${CHUNKS_PER_FILE_MAX}`);
  }
  return { bits, count };
}

/** Writes the chunk indexes; holes get the null address. */
export function writeChunks(
  target: Buffer,
  at: number,
  plan: ChunkPlan,
  joined: readonly ErofsExtent[],
): void {
  for (let index = 0; index < plan.count; index += 1) {
    target.writeUInt32LE(NULL_BLOCK, at + index * CHUNK_INDEX_BYTES + 4);
  }
  const blocksPerChunk = 2 ** plan.bits;
  const chunkBytes = blocksPerChunk * EROFS_BLOCK_BYTES;
  for (const extent of joined) {
    const first = extent.fileOffset / chunkBytes;
    const count = Math.ceil(extent.length / chunkBytes);
    const block = extent.deviceOffset / EROFS_BLOCK_BYTES;
    for (let index = 0; index < count; index += 1) {
      const entry = at + (first + index) * CHUNK_INDEX_BYTES;
      target.writeUInt16LE(extent.device, entry + 2);
      target.writeUInt32LE(block + index * blocksPerChunk, entry + 4);
    }
  }
}
