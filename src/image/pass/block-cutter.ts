/** Collects what one block of a layer consists of: ranges and digests of its blob and tar bytes. */
import { createHash, type Hash } from "node:crypto";
import { DaemonError } from "../../base/errors.ts";
import { BLOCK_TAR_BYTES_MAX, type Block, type BlockCodec } from "../../block/index.ts";

/** A block is closed at the first possible place after this many tar bytes. */
export const BLOCK_TARGET_TAR_BYTES = 1024 * 1024;
/** Blob bytes of one block: as much as the largest block can need, with leeway for framing. */
const BLOCK_BLOB_BYTES_MAX = 2 * BLOCK_TAR_BYTES_MAX;

/** A finished block; `window` is what its decoding starts from, not yet stored anywhere. */
export interface CutBlock extends Omit<Block, "index" | "windowLength" | "windowOffset"> {
  readonly window: Uint8Array | undefined;
}

export interface BlockStart {
  readonly codec: BlockCodec;
  /** Where the block's first blob byte lies. */
  readonly blobOffset: number;
  readonly startBits?: number;
  readonly atMemberStart?: boolean;
  readonly window?: Uint8Array | undefined;
  /** Blob and tar bytes are the same: they are added and hashed once, as tar. */
  readonly isPlain?: boolean;
}

/** Bytes are hashed as they are added, so callers may reuse their buffers. */
export class BlockCutter {
  #closed: CutBlock[] = [];
  #open:
    { readonly start: BlockStart; readonly blobHash: Hash; readonly tarHash: Hash } | undefined;
  #tarOffset = 0;
  #tarLength = 0;
  #blobLength = 0;

  /** Opens a block at the end of the one before, which must be closed. */
  open(start: BlockStart): void {
    this.#open = { start, blobHash: createHash("sha256"), tarHash: createHash("sha256") };
    this.#tarLength = 0;
    this.#blobLength = 0;
  }

  get isOpen(): boolean {
    return this.#open !== undefined;
  }

  get tarLength(): number {
    return this.#tarLength;
  }

  get isFull(): boolean {
    return this.#tarLength >= BLOCK_TARGET_TAR_BYTES;
  }

  /** Whether the open block starts inside a gzip member. */
  get startsInsideMember(): boolean {
    return this.#open !== undefined && this.#open.start.atMemberStart !== true;
  }

  addTar(bytes: Uint8Array): void {
    this.#open?.tarHash.update(bytes);
    this.#tarLength += bytes.length;
    if (this.#tarLength > BLOCK_TAR_BYTES_MAX) {
      throw this.#tooLong(`${BLOCK_TAR_BYTES_MAX} bytes of tar`);
    }
  }

  addBlob(bytes: Uint8Array): void {
    this.#open?.blobHash.update(bytes);
    this.#blobLength += bytes.length;
    if (this.#blobLength > BLOCK_BLOB_BYTES_MAX) {
      throw this.#tooLong(`${BLOCK_BLOB_BYTES_MAX} bytes of blob`);
    }
  }

  /** Closes the open block; one without tar bytes is dropped. */
  close(): void {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined || this.#tarLength === 0) return;
    const tarSha256 = open.tarHash.digest();
    this.#closed.push({
      codec: open.start.codec,
      tarOffset: this.#tarOffset,
      tarLength: this.#tarLength,
      blobOffset: open.start.blobOffset,
      blobLength: open.start.isPlain === true ? this.#tarLength : this.#blobLength,
      startBits: open.start.startBits ?? 0,
      atMemberStart: open.start.atMemberStart ?? false,
      window: open.start.window,
      blobSha256: open.start.isPlain === true ? tarSha256 : open.blobHash.digest(),
      tarSha256,
    });
    this.#tarOffset += this.#tarLength;
  }

  /** Adds a block that was measured elsewhere. */
  add(block: Omit<CutBlock, "tarOffset">): void {
    this.#closed.push({ ...block, tarOffset: this.#tarOffset });
    this.#tarOffset += block.tarLength;
  }

  /** Finished blocks since the last call, in order. */
  takeClosed(): CutBlock[] {
    if (this.#closed.length === 0) return this.#closed;
    const closed = this.#closed;
    this.#closed = [];
    return closed;
  }

  #tooLong(size: string): DaemonError {
    const message = `no place to cut a block within ${size} after tar offset ${this.#tarOffset}`;
    return new DaemonError("unimplemented", message);
  }
}
