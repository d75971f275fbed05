/** What the read path asks of the places that blocks come from, and of the places they go to. */
import type { ByteRange } from "../base/range-set.ts";
import type { Digest } from "../oci/index.ts";
import type { Block, BlockTable } from "./block-table.ts";

/** Lower is served first. */
export const FETCH_PRIORITY = { reader: 0, readAhead: 1, prefetch: 2, fill: 3 } as const;
export type FetchPriority = 0 | 1 | 2 | 3;

/** A run of adjacent blocks of one layer, as one range of its blob. */
export interface BlobRun {
  /** Diff ID, hex. */
  readonly layerId: string;
  readonly blobDigest: Digest;
  readonly blobBytes: number;
  /** Blob bytes, end exclusive. */
  readonly range: ByteRange;
  readonly firstBlock: number;
  /** Inclusive. */
  readonly lastBlock: number;
}

export interface SourceFetchOptions {
  /** When aborted, the stream ends with the signal's reason and its connection is given up. */
  readonly signal: AbortSignal;
  readonly priority: FetchPriority;
}

/**
 * A place that has blob bytes: a registry, later a tree parent.
 *
 * A failure's code decides what follows: `data-loss` convicts the source for these blocks, a
 * retryable code (base/errors) is tried again with backoff, any other makes the layer's blocks
 * go to the next source.
 */
export interface BlockSource {
  /** A short constant for logs and counters: `registry`, `parent`. Unique within a layer. */
  readonly name: string;
  /** What limits are counted by: scheme, host and port. */
  readonly origin: string;
  /** Streams exactly the bytes of `run.range`, in order; the caller copies the pieces. */
  fetch(run: BlobRun, options: SourceFetchOptions): Promise<AsyncIterable<Uint8Array>>;
  /** Told when a complete block had the wrong digest. */
  onBadBlock?(run: BlobRun, block: Block): void;
}

/** A layer as the read path sees it. */
export interface BlockLayer {
  /** Diff ID, hex. */
  readonly id: string;
  readonly blobDigest: Digest;
  readonly blobBytes: number;
  readonly table: BlockTable;
  /** The inflated or stored window that the block's codec needs; undefined where it needs none. */
  readWindow(block: Block): Promise<Uint8Array | undefined>;
  /** In order of preference; asked again for every request. */
  sources(): readonly BlockSource[];
}

/** Blob bytes by block, kept as fetched. */
export interface StoredBlobs {
  has(index: number): boolean;
  /** Undefined when it is gone. The bytes may be damaged: the caller verifies. */
  read(index: number): Promise<Uint8Array | undefined>;
  /** Best effort: never rejects for want of room. */
  write(index: number, bytes: Uint8Array): Promise<void>;
  /** Forgets a block that proved wrong. */
  discard(index: number): Promise<void>;
}

/** Where a layer's decoded blocks are kept; `DiskCache` implements it. */
export interface StoredLayer {
  /** The block is there and verified. */
  has(index: number): boolean;
  /** The block was there before an unclean stop and has not been verified since. */
  isDoubtful(index: number): boolean;
  /** Verifies a doubtful block; the answer is then `has(index)`. */
  confirm(index: number, options: { readonly signal: AbortSignal }): Promise<boolean>;
  /**
   * Whether all blocks first…last are present; if so they are kept from eviction for a while and
   * count as just used.
   */
  hold(first: number, last: number): boolean;
  /** Keeps a verified block; false when there is no room (the caller passes the bytes through). */
  write(index: number, tarBytes: Uint8Array): Promise<boolean>;
  /** Tar bytes; `not-found` when a block of the range is not present. */
  read(range: ByteRange): Promise<Uint8Array>;
  readonly blobs?: StoredBlobs | undefined;
}
