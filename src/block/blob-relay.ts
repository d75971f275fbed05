/**
 * Blocks for other nodes: the blob bytes of one block from memory, from the disk, or from the
 * request that is bringing it (src/block/arriving-blob.ts), and the rule which of them stay here.
 */
import { throwIfAborted } from "../base/abort.ts";
import { DaemonError, errorCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { SingleFlight } from "../base/single-flight.ts";
import { ArrivingBlob } from "./arriving-blob.ts";
import type { BlobTap } from "./arriving-blob.ts";
import type { AskedBlocks } from "./asked-blocks.ts";
import { FETCH_PRIORITY } from "./block-source.ts";
import type { BlockLayer, FetchPriority, StoredLayer } from "./block-source.ts";
import { isPlain } from "./block-table.ts";
import type { Block } from "./block-table.ts";
import type { FetchScheduler, OpenTap } from "./fetch-scheduler.ts";
import type { BlockFinisher } from "./finish-block.ts";
import { RELAY_BYTES_MAX } from "./limits.ts";
import type { MemoryBlocks } from "./memory-blocks.ts";
import type { ReadCounters } from "./read-counters.ts";
import { isSequential } from "./run-plan.ts";

export interface OpenBlobOptions {
  readonly priority: FetchPriority;
  /** The other node is gone: its tap ends, and what it alone waited for is given up. */
  readonly signal: AbortSignal;
  /** Whether a block that is neither here nor on its way is fetched. */
  readonly mayFetch: boolean;
  /** Who asks, to tell two children from one that asks twice. */
  readonly child?: string;
  /** How many children must ask before a block stays here; 2 unless told (a root keeps at 1). */
  readonly keepAfter?: 1 | 2;
}

export interface OpenedBlob extends BlobTap {
  readonly from: "memory" | "disk" | "relay";
}

/** The layer as the resolver knows it. */
export interface RelayLayer {
  readonly layer: BlockLayer;
  readonly stored: StoredLayer;
  readonly counters: ReadCounters;
  readonly asked: AskedBlocks;
  /** Of the layer: aborted when it is closed. */
  readonly signal: AbortSignal;
}

export interface BlobRelayParts {
  readonly scheduler: FetchScheduler;
  readonly finisher: BlockFinisher;
  /** Verified blob bytes. */
  readonly memory: MemoryBlocks;
  readonly logger: Logger;
}

export class BlobRelay {
  readonly #parts: BlobRelayParts;
  readonly #reads = new SingleFlight<string, Uint8Array | undefined>();
  /** With open taps. */
  readonly #open = new Set<ArrivingBlob>();
  #openBytes = 0;

  constructor(parts: BlobRelayParts) {
    this.#parts = parts;
  }

  /** Blob bytes that are held for other nodes. */
  get bytes(): number {
    return this.#openBytes;
  }

  async open(
    relayed: RelayLayer,
    index: number,
    options: OpenBlobOptions,
  ): Promise<OpenedBlob | undefined> {
    throwIfAborted(options.signal);
    const { layer, counters, asked } = relayed;
    const block = layer.table.at(index);
    // All blocks of such a frame have the frame's range: none of them can be had by itself.
    if (isSequential(block)) return undefined;
    const { children, isNew } = asked.note(index, options.child);
    const isKept = children >= (options.keepAfter ?? 2);
    const known = this.#parts.memory.get(layer.id, index);
    const bytes = known ?? (await this.#fromDisk(relayed, block, options));
    if (bytes !== undefined) {
      const from = known === undefined ? "disk" : "memory";
      const opened = { blob: ArrivingBlob.of(bytes), leave: () => undefined };
      const tap = this.#tap(opened, options);
      // In memory only so far: from now on it stays.
      if (isKept && isNew && from === "memory") this.#keep(relayed, block);
      counters.served[from].add(1, 1, block.blobLength);
      return { ...tap, from };
    }
    return this.#fromFlight(relayed, block, { ...options, isKept });
  }

  #fromFlight(
    { layer, counters }: RelayLayer,
    block: Block,
    options: OpenBlobOptions & { readonly isKept: boolean },
  ): OpenedBlob | undefined {
    const { index, blobLength } = block;
    const opened = this.#parts.scheduler.tap(layer.id, index, options);
    if (opened === undefined) return undefined;
    const tap = this.#tap(opened, options);
    tap.verdict.then(
      () => {
        counters.served.relay.add(0, 1, blobLength);
      },
      () => undefined, // the other node is told
    );
    counters.served.relay.add(1, 0, 0);
    return { ...tap, from: "relay" };
  }

  /** `resource-exhausted` when too much is open for others already. */
  #tap({ blob, leave }: OpenTap, { signal, priority }: OpenBlobOptions): BlobTap {
    try {
      throwIfAborted(signal);
      this.#admit(blob, priority);
    } catch (error) {
      leave();
      throw error;
    }
    return blob.tap(signal, {
      onVerdict: leave,
      onEnd: () => {
        if (blob.taps > 0 || !this.#open.delete(blob)) return;
        this.#openBytes -= blob.length;
      },
    });
  }

  /** Verified blob bytes from the blob store, or from the decoded one where they are the same. */
  async #fromDisk(
    { layer, stored }: RelayLayer,
    block: Block,
    options: OpenBlobOptions,
  ): Promise<Uint8Array | undefined> {
    const { finisher } = this.#parts;
    const isBlobKept = stored.blobs?.has(block.index) === true;
    const isTarKept = isPlain(block) && stored.has(block.index);
    if (!isBlobKept && !isTarKept) return undefined;
    const place = { layer, stored };
    return this.#reads.run(
      `${layer.id}/${block.index}`,
      async () => {
        try {
          const bytes = isBlobKept ? await finisher.readBlob(place, block) : undefined;
          if (bytes !== undefined || !isTarKept) return bytes;
          return await this.#fromDecoded({ layer, stored }, block);
        } catch (error) {
          this.#parts.logger.warn("kept-blob-unusable", { layer: layer.id, err: error });
          return undefined; // fetched anew
        }
      },
      options,
    );
  }

  async #fromDecoded(
    { layer, stored }: Pick<RelayLayer, "layer" | "stored">,
    block: Block,
  ): Promise<Uint8Array | undefined> {
    const { tarOffset, tarLength } = block;
    try {
      const bytes = await stored.read({ start: tarOffset, end: tarOffset + tarLength });
      if (!(await this.#parts.finisher.isIntact(block, bytes))) return undefined;
      this.#parts.memory.set(layer.id, block.index, bytes);
      return bytes;
    } catch (error) {
      if (errorCode(error) === "not-found") return undefined; // evicted meanwhile
      throw error;
    }
  }

  /** Decodes and keeps the block, below everything else. */
  #keep({ layer, stored, signal }: RelayLayer, block: Block): void {
    const { blobs } = stored;
    const lacksBlob = blobs !== undefined && !isPlain(block) && !blobs.has(block.index);
    if (stored.has(block.index) && !lacksBlob) return;
    const options = { priority: FETCH_PRIORITY.fill, signal };
    this.#parts.scheduler.want(layer.id, block.index, options).catch((error: unknown) => {
      this.#parts.logger.debug("relayed-block-not-kept", { layer: layer.id, err: error });
    });
  }

  #admit(blob: ArrivingBlob, priority: FetchPriority): void {
    if (this.#open.has(blob)) return;
    const max = RELAY_BYTES_MAX[priority];
    if (this.#openBytes > 0 && this.#openBytes + blob.length > max) {
      const text = `over ${max} bytes of blocks are open for other nodes`;
      throw new DaemonError("resource-exhausted", text);
    }
    this.#open.add(blob);
    this.#openBytes += blob.length;
  }
}
