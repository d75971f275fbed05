/** From blob bytes to a kept block: verify, decode, verify, store. */
import { DaemonError, errorCode, withContext } from "../base/errors.ts";
import { Semaphore } from "../base/semaphore.ts";
import type { Block } from "./block-table.ts";
import type { BlockLayer, FetchPriority, StoredLayer } from "./block-source.ts";
import type { BlockOutcome } from "./flight.ts";
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
  readonly #decodes = new Semaphore(DECODES_MAX, { queueMax: FLIGHTS_MAX });

  constructor(decode: DecodeBlock, memory: MemoryBlocks) {
    this.#decode = decode;
    this.#memory = memory;
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
    const isSame =
      tarBytes === blobBytes && Buffer.compare(block.blobSha256, block.tarSha256) === 0;
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
