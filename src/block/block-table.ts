/**
 * The block table: how one layer's blob is cut into blocks, in a fixed binary form.
 *
 * Record, little endian, BLOCK_RECORD_BYTES each, in order of the tar stream:
 *
 * | offset | size | meaning |
 * |---|---|---|
 * | 0 | 8 | tar offset |
 * | 8 | 8 | blob offset |
 * | 16 | 4 | tar length, > 0 |
 * | 20 | 4 | blob length, > 0 |
 * | 24 | 1 | codec (BLOCK_CODECS index) |
 * | 25 | 1 | gzip: bits of the first blob byte that belong to the block before (0…7) |
 * | 26 | 2 | flags: 1 = the block starts at a gzip member header |
 * | 28 | 4 | gzip: length of the stored window (deflated), 0 = none |
 * | 32 | 8 | gzip: offset of the stored window in the windows section |
 * | 40 | 32 | sha256 of the blob bytes of the block |
 * | 72 | 32 | sha256 of the tar bytes of the block |
 */
import { DaemonError } from "../base/errors.ts";

export const BLOCK_RECORD_BYTES = 104;
/** A block may never decode to more than this (a deflate block has no limit of its own). */
export const BLOCK_TAR_BYTES_MAX = 64 * 1024 * 1024;
/** Blob bytes of a block that is fetched whole: what they decode to, and slack for empty blocks. */
export const BLOCK_BLOB_BYTES_MAX = 2 * BLOCK_TAR_BYTES_MAX;
/** 2^53 would be the limit of numbers; this is the limit of sense: 4 TiB of tar. */
export const LAYER_TAR_BYTES_MAX = 4 * 1024 ** 4;

/**
 * `zstd-sequential`: a zstd frame too large to be one block. All its blocks carry the whole
 * frame's blob range (`blobLength` in units of 1 byte, so frames over 4 GiB are refused) and can
 * only be had by decoding the frame from its start; their blob digest is all zeros (unused).
 */
export const BLOCK_CODECS = ["none", "gzip", "zstd", "zstd-sequential"] as const;
export type BlockCodec = (typeof BLOCK_CODECS)[number];

export interface Block {
  readonly index: number;
  readonly tarOffset: number;
  readonly tarLength: number;
  readonly blobOffset: number;
  readonly blobLength: number;
  readonly codec: BlockCodec;
  readonly startBits: number;
  readonly atMemberStart: boolean;
  readonly windowOffset: number;
  /** 0 where the block needs no window. */
  readonly windowLength: number;
  readonly blobSha256: Uint8Array;
  readonly tarSha256: Uint8Array;
}

/** One layer's blocks; they cover [0, tarBytes) without gap or overlap. */
export class BlockTable {
  readonly #view: Buffer;
  readonly count: number;
  readonly tarBytes: number;

  private constructor(bytes: Buffer) {
    this.#view = bytes;
    this.count = bytes.length / BLOCK_RECORD_BYTES;
    const last = this.count === 0 ? undefined : this.at(this.count - 1);
    this.tarBytes = last === undefined ? 0 : last.tarOffset + last.tarLength;
  }

  /**
   * Checks every record (the table may come from a peer or a registry); throws `data-loss`.
   * `blobBytes` bounds the blob ranges. The table keeps `bytes` and reads from it.
   */
  static parse(bytes: Uint8Array, options: { readonly blobBytes: number }): BlockTable {
    if (bytes.length % BLOCK_RECORD_BYTES !== 0) {
      throw new DaemonError("data-loss", `block table of ${bytes.length} bytes is not whole`);
    }
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let tarOffset = 0;
    for (let index = 0; index * BLOCK_RECORD_BYTES < buffer.length; index += 1) {
      tarOffset = checkRecord(buffer, index, { tarOffset, blobBytes: options.blobBytes });
    }
    return new BlockTable(buffer);
  }

  get bytes(): Uint8Array {
    return this.#view;
  }

  /** The digests are views into the table. */
  at(index: number): Block {
    const base = index * BLOCK_RECORD_BYTES;
    const view = this.#view;
    if (index < 0 || base + BLOCK_RECORD_BYTES > view.length) {
      throw new DaemonError("out-of-range", `block ${index} of ${this.count}`);
    }
    return {
      index,
      tarOffset: Number(view.readBigUInt64LE(base)),
      blobOffset: Number(view.readBigUInt64LE(base + 8)),
      tarLength: view.readUInt32LE(base + 16),
      blobLength: view.readUInt32LE(base + 20),
      codec: BLOCK_CODECS[view.readUInt8(base + 24)] ?? "none",
      startBits: view.readUInt8(base + 25),
      atMemberStart: (view.readUInt16LE(base + 26) & 1) === 1,
      windowLength: view.readUInt32LE(base + 28),
      windowOffset: Number(view.readBigUInt64LE(base + 32)),
      blobSha256: view.subarray(base + 40, base + 72),
      tarSha256: view.subarray(base + 72, base + 104),
    };
  }

  tarOffsetOf(index: number): number {
    return Number(this.#view.readBigUInt64LE(index * BLOCK_RECORD_BYTES));
  }

  /** Index of the block that holds the tar offset; `out-of-range` outside the layer. */
  find(tarOffset: number): number {
    if (tarOffset < 0 || tarOffset >= this.tarBytes) {
      throw new DaemonError("out-of-range", `tar offset ${tarOffset} of ${this.tarBytes}`);
    }
    let low = 0;
    let high = this.count;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if (this.tarOffsetOf(middle) <= tarOffset) low = middle;
      else high = middle;
    }
    return low;
  }

  /** First and last block index of a non-empty tar range. */
  span(range: { readonly start: number; readonly end: number }): { first: number; last: number } {
    return { first: this.find(range.start), last: this.find(range.end - 1) };
  }
}

/** Uncompressed: the block's blob bytes are its tar bytes. */
export function isPlain(block: Block): boolean {
  return (
    block.codec === "none" &&
    block.blobLength === block.tarLength &&
    Buffer.compare(block.blobSha256, block.tarSha256) === 0
  );
}

/** Its blob range is a whole frame's, decoded as it streams. */
function isStreamed(codec: number): boolean {
  return BLOCK_CODECS[codec] === "zstd-sequential";
}

function checkRecord(
  buffer: Buffer,
  index: number,
  expected: { readonly tarOffset: number; readonly blobBytes: number },
): number {
  const base = index * BLOCK_RECORD_BYTES;
  const tarOffset = buffer.readBigUInt64LE(base);
  const blobOffset = buffer.readBigUInt64LE(base + 8);
  const tarLength = buffer.readUInt32LE(base + 16);
  const blobLength = buffer.readUInt32LE(base + 20);
  const isSound =
    tarOffset === BigInt(expected.tarOffset) &&
    tarLength > 0 &&
    tarLength <= BLOCK_TAR_BYTES_MAX &&
    blobLength > 0 &&
    blobOffset + BigInt(blobLength) <= BigInt(expected.blobBytes) &&
    buffer.readUInt8(base + 24) < BLOCK_CODECS.length &&
    (blobLength <= BLOCK_BLOB_BYTES_MAX || isStreamed(buffer.readUInt8(base + 24))) &&
    buffer.readUInt8(base + 25) < 8;
  const next = expected.tarOffset + tarLength;
  if (!isSound || next > LAYER_TAR_BYTES_MAX) {
    throw new DaemonError("data-loss", `block table record ${index} is malformed`);
  }
  return next;
}

/** Appends records; digests are copied. */
export class BlockTableBuilder {
  readonly #records: Buffer[] = [];

  get count(): number {
    return this.#records.length;
  }

  add(block: Omit<Block, "index">): void {
    const record = Buffer.alloc(BLOCK_RECORD_BYTES);
    record.writeBigUInt64LE(BigInt(block.tarOffset), 0);
    record.writeBigUInt64LE(BigInt(block.blobOffset), 8);
    record.writeUInt32LE(block.tarLength, 16);
    record.writeUInt32LE(block.blobLength, 20);
    record.writeUInt8(BLOCK_CODECS.indexOf(block.codec), 24);
    record.writeUInt8(block.startBits, 25);
    record.writeUInt16LE(block.atMemberStart ? 1 : 0, 26);
    record.writeUInt32LE(block.windowLength, 28);
    record.writeBigUInt64LE(BigInt(block.windowOffset), 32);
    record.set(block.blobSha256, 40);
    record.set(block.tarSha256, 72);
    this.#records.push(record);
  }

  finish(): Buffer {
    return Buffer.concat(this.#records);
  }
}
