/** From blob bytes to a kept block: verify, decode, verify, store. */
import { DaemonError, errorCode, withContext } from "../base/errors.ts";
import { Semaphore } from "../base/semaphore.ts";
import { isPlain } from "./block-table.ts";
import type { Block } from "./block-table.ts";
import type { BlockLayer, FetchPriority, StoredLayer } from "./block-source.ts";
import type { BlockOutcome, Flight } from "./flight.ts";
import { hasSha256 } from "./hashing.ts";
import { DECODES_MAX, FLIGHTS_MAX } from "./limits.ts";
import type { MemoryBlocks } from "./memory-blocks.ts";
import { shortDigest } from "./names.ts";

/** Blob bytes to exactly `block.tarLength` tar bytes; `data-loss` where they do not decode so. */
export type DecodeBlock = (
  block: Block,
  blobBytes: Uint8Array,
  window: Uint8Array | undefined,
) => Promise<Uint8Array>;

export interface BlockPlaceOfWork {
  readonly layer: BlockLayer;
  readonly stored: StoredLayer;
}

export class BlockFinisher {
  readonly #decode: DecodeBlock;
  readonly #memory: MemoryBlocks;
  /** Verified blob bytes. */
  readonly #blobMemory: MemoryBlocks;
  readonly #decodes = new Semaphore(DECODES_MAX, { queueMax: FLIGHTS_MAX });

  constructor(decode: DecodeBlock, memory: MemoryBlocks, blobMemory: MemoryBlocks) {
    this.#decode = decode;
    this.#memory = memory;
    this.#blobMemory = blobMemory;
  }

  /** Whether the block's blob bytes are here, right or not. */
  hasBlob({ layer, stored }: BlockPlaceOfWork, index: number): boolean {
    return this.#blobMemory.has(layer.id, index) || stored.blobs?.has(index) === true;
  }

  /** Verified blob bytes from memory or the store; a damaged block is discarded there. */
  async readBlob(place: BlockPlaceOfWork, block: Block): Promise<Uint8Array | undefined> {
    const { layer, stored } = place;
    const known = this.#blobMemory.get(layer.id, block.index);
    if (known !== undefined) return known;
    const bytes = await stored.blobs?.read(block.index);
    if (bytes === undefined) return undefined;
    if (await this.isIntact(block, bytes)) {
      this.#blobMemory.set(layer.id, block.index, bytes);
      return bytes;
    }
    await stored.blobs?.discard(block.index);
    return undefined;
  }

  /** Hands verified blob bytes to the flight's taps, and to those who come a moment later. */
  deliver({ layer }: BlockPlaceOfWork, flight: Flight, blobBytes: Uint8Array): void {
    this.#blobMemory.set(layer.id, flight.index, blobBytes);
    flight.deliver(blobBytes);
  }

  /** Decodes and keeps verified blob bytes; `track` is given the write that nobody waits for. */
  async finish(
    place: BlockPlaceOfWork,
    block: Block,
    blobBytes: Uint8Array,
    options: {
      readonly priority: FetchPriority;
      readonly track: (work: Promise<void>) => void;
    },
  ): Promise<BlockOutcome> {
    const { stored } = place;
    const isThere = stored.has(block.index);
    const signal = new AbortController().signal; // even when everybody left: the bytes are here
    const { priority } = options;
    const tarBytes = isThere
      ? undefined
      : await this.decode(place, block, blobBytes, { priority, signal });
    if (stored.blobs !== undefined && !isPlain(block)) {
      options.track(stored.blobs.write(block.index, blobBytes));
    }
    return tarBytes === undefined ? { isStored: true } : this.keep(place, block, tarBytes, options);
  }

  /** Whether the bytes are the block's blob bytes. */
  async isIntact(block: Block, blobBytes: Uint8Array): Promise<boolean> {
    return blobBytes.length === block.blobLength && (await hasSha256(blobBytes, block.blobSha256));
  }

  /**
   * Decodes verified blob bytes. A failure here is `data-loss` and nobody's fault but the block
   * table's: no other source can help.
   */
  async decode(
    { layer }: BlockPlaceOfWork,
    block: Block,
    blobBytes: Uint8Array,
    options: { readonly priority: FetchPriority; readonly signal: AbortSignal },
  ): Promise<Uint8Array> {
    const window = await layer.readWindow(block);
    const tarBytes = await this.#decodes.run(options, async () => {
      try {
        return await this.#decode(block, blobBytes, window);
      } catch (error) {
        const code = errorCode(error) === "canceled" ? "canceled" : "data-loss";
        throw withContext(error, `${describeBlock(layer, block)} does not decode`, code);
      }
    });
    // Uncompressed: the bytes that were just verified, under the same digest.
    const isSame = tarBytes === blobBytes && isPlain(block);
    if (!isSame && !(await this.isDecodedIntact(block, tarBytes))) {
      throw new DaemonError(
        "data-loss",
        `${describeBlock(layer, block)} decodes to other tar bytes than its layer map says`,
      );
    }
    return tarBytes;
  }

  async isDecodedIntact(block: Block, tarBytes: Uint8Array): Promise<boolean> {
    return tarBytes.length === block.tarLength && (await hasSha256(tarBytes, block.tarSha256));
  }

  /** Keeps verified tar bytes on disk, else (for readers) in memory. */
  async keep(
    { layer, stored }: BlockPlaceOfWork,
    block: Block,
    tarBytes: Uint8Array,
    options: { readonly priority: FetchPriority },
  ): Promise<BlockOutcome> {
    if (await stored.write(block.index, tarBytes)) return { isStored: true };
    if (options.priority <= 1) this.#memory.set(layer.id, block.index, tarBytes);
    return { isStored: false, bytes: tarBytes };
  }
}

/** Which blob and range, for messages. */
export function describeBlock(layer: BlockLayer, block: Block): string {
  const end = block.blobOffset + block.blobLength;
  return `block ${block.index} of blob ${shortDigest(layer.blobDigest)}, bytes ${block.blobOffset}-${end}`;
}
