/**
 * The bitmap of one sparse file: which of its blocks are there. Presence is a promise (a hole
 * reads as zeros), so the order of writes is the point of this file:
 *
 * - a bit is set only after an fdatasync of the data that began after the block was written;
 * - a bit is cleared, and the clearing is on the disk, before the block's hole is punched.
 *
 * Layout (little endian), also in docs/formats/cache.md:
 *
 * | offset | size | meaning |
 * |---|---|---|
 * | 0 | 8 | `FNPRES01` |
 * | 8 | 4 | number of blocks |
 * | 12 | 4 | kind: 0 decoded, 1 blobs |
 * | 16 | 32 | sha256 of the block table that numbers the blocks |
 * | 48 | 32 | sha256 of bytes 0…47 |
 * | 80 | 48 | zeros |
 * | 128 | ⌈blocks / 8⌉ | bit i of byte j: block 8 j + i is present |
 */
import { createHash } from "node:crypto";
import type { CacheFile } from "./cache-files.ts";

const MAGIC = "FNPRES01";
export const PRESENCE_HEADER_BYTES = 128;

export type StoreKind = "decoded" | "blobs";

export interface PresenceIdentity {
  readonly kind: StoreKind;
  readonly blockCount: number;
  readonly tableSha256: Uint8Array;
}

export class PresenceFile {
  readonly #file: CacheFile;
  readonly #bits: Buffer;
  /** Writes of the bitmap happen one after another. */
  #lastWrite: Promise<void> = Promise.resolve();

  private constructor(file: CacheFile, bits: Buffer) {
    this.#file = file;
    this.#bits = bits;
  }

  /**
   * Opens the bitmap, which belongs to the caller's file from now on. One that is torn, or that
   * numbers other blocks, is made empty on the disk before this returns.
   */
  static async open(file: CacheFile, identity: PresenceIdentity): Promise<PresenceFile> {
    const length = Math.ceil(identity.blockCount / 8);
    const header = encodeHeader(identity);
    const { sizeBytes } = await file.stat();
    if (sizeBytes === PRESENCE_HEADER_BYTES + length) {
      const bytes = await file.readAt(0, sizeBytes);
      if (bytes.subarray(0, PRESENCE_HEADER_BYTES).equals(header)) {
        // A killed predecessor may have cleared a bit in the page cache only. Were its block
        // written again and the power cut, the old bit would vouch for bytes that were lost.
        await file.sync();
        return new PresenceFile(file, Buffer.from(bytes.subarray(PRESENCE_HEADER_BYTES)));
      }
    }
    // No bit of the old table may survive under the new header, whatever is lost on the way.
    await file.truncate(0);
    await file.sync();
    const bits = Buffer.alloc(length);
    await file.writeAt(Buffer.concat([header, bits]), 0);
    await file.sync();
    return new PresenceFile(file, bits);
  }

  has(index: number): boolean {
    return (((this.#bits[index >> 3] ?? 0) >> (index & 7)) & 1) === 1;
  }

  /**
   * Sets the bits of blocks whose data is on the disk. `isStillWritten` is asked when it is this
   * write's turn, so that a block evicted meanwhile is not resurrected.
   */
  async set(indexes: readonly number[], isStillWritten: (index: number) => boolean): Promise<void> {
    await this.#exclusive(async () => {
      const now = indexes.filter((index) => isStillWritten(index) && !this.has(index));
      for (const index of now) this.#assign(index, true);
      try {
        await this.#writeBytesOf(now);
      } catch (error) {
        for (const index of now) this.#assign(index, false);
        throw error;
      }
    });
  }

  /** Clears the bits; they are clear on the disk when this resolves. */
  async clear(indexes: readonly number[]): Promise<void> {
    await this.#exclusive(async () => {
      const now = indexes.filter((index) => this.has(index));
      if (now.length === 0) return;
      for (const index of now) this.#assign(index, false);
      try {
        await this.#writeBytesOf(now);
        await this.#file.sync();
      } catch (error) {
        // The caller keeps the blocks; the next write of these bytes says so again.
        for (const index of now) this.#assign(index, true);
        throw error;
      }
    });
  }

  /** The bitmap's own bytes are on the disk. */
  async sync(): Promise<void> {
    await this.#exclusive(() => this.#file.sync());
  }

  /** When the layer was last used, kept as the file's time. */
  async setUseTime(timeMs: number): Promise<void> {
    await this.#file.setModifiedTime(timeMs);
  }

  #assign(index: number, isPresent: boolean): void {
    const old = this.#bits[index >> 3] ?? 0;
    const bit = 1 << (index & 7);
    this.#bits[index >> 3] = isPresent ? old | bit : old & ~bit;
  }

  /** One write of the bytes from the first to the last changed. */
  async #writeBytesOf(indexes: readonly number[]): Promise<void> {
    if (indexes.length === 0) return;
    let first = Infinity;
    let last = 0;
    for (const index of indexes) {
      first = Math.min(first, index >> 3);
      last = Math.max(last, index >> 3);
    }
    // A copy: what is written must not change under the write.
    const bytes = Buffer.from(this.#bits.subarray(first, last + 1));
    await this.#file.writeAt(bytes, PRESENCE_HEADER_BYTES + first);
  }

  async #exclusive(work: () => Promise<void>): Promise<void> {
    const mine = this.#lastWrite.then(work);
    this.#lastWrite = mine.catch(() => undefined);
    await mine;
  }
}

/** Number of set bits, without knowing the table; 0 for what is not such a file. */
export function countPresent(bytes: Uint8Array): number {
  if (Buffer.from(bytes.subarray(0, 8)).toString("latin1") !== MAGIC) return 0;
  let count = 0;
  for (const byte of bytes.subarray(PRESENCE_HEADER_BYTES)) {
    for (let rest = byte; rest !== 0; rest &= rest - 1) count += 1;
  }
  return count;
}

function encodeHeader(identity: PresenceIdentity): Buffer {
  const header = Buffer.alloc(PRESENCE_HEADER_BYTES);
  header.write(MAGIC, 0, "latin1");
  header.writeUInt32LE(identity.blockCount, 8);
  header.writeUInt32LE(identity.kind === "decoded" ? 0 : 1, 12);
  header.set(identity.tableSha256, 16);
  header.set(createHash("sha256").update(header.subarray(0, 48)).digest(), 48);
  return header;
}
