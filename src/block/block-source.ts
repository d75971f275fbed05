/** What the read path asks of the places that blocks come from, and of the places they go to. */
import { DaemonError } from "../base/errors.ts";
import type { ByteRange } from "../base/range-set.ts";
import type { Digest } from "../oci/index.ts";
import type { Block, BlockTable } from "./block-table.ts";

/** Lower is served first. */
export const FETCH_PRIORITY = { reader: 0, readAhead: 1, prefetch: 2, fill: 3 } as const;
export type FetchPriority = 0 | 1 | 2 | 3;

/** One block's place in its layer's blob. */
export interface BlobPlace {
  readonly index: number;
  /** Blob bytes. */
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

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
  /**
   * The blocks by themselves, in order of the blob; neighbours may share a byte, and there may be
   * gaps. Empty for a `zstd-sequential` frame, which is had as a whole or not at all.
   */
  readonly blocks?: readonly BlobPlace[];
}

export interface SourceFetchOptions {
  /** When aborted, the stream ends with the signal's reason and its connection is given up. */
  readonly signal: AbortSignal;
  readonly priority: FetchPriority;
  /**
   * To be called at each sign of life that is no bytes (a parent that itself waits says so): the
   * request is then not given up for its silence. An empty piece of the stream says the same.
   */
  readonly onAlive?: () => void;
  /** Whether a reader waits for these bytes now: the run may have begun for something less. */
  readonly isUrgent?: () => boolean;
}

/**
 * `skip`: not now, and nobody's fault; the next source is asked, and this one again after `wake`
 * or a short while. `untilMs` (of the clock): it will know soon, and until then no source after it
 * is asked in its place; later than that it counts as `skip`.
 */
export type SourceReadiness = "ready" | "skip" | { readonly untilMs: number };

/**
 * A place that has blob bytes: a registry, a tree parent.
 *
 * A failure's code decides what follows: `data-loss` convicts the source for these blocks, a
 * retryable code (base/errors) is tried again with backoff, any other makes the layer's blocks
 * go to the next source. An error of `passError` blames nobody: just these blocks go to the next.
 */
export interface BlockSource {
  /** A short constant for logs and counters: `registry`, `parent`. Unique within a layer. */
  readonly name: string;
  /** What limits are counted by: scheme, host and port. */
  readonly origin: string;
  /** What is less urgent than the block that a request is made for does not go along with it. */
  readonly isScarce?: boolean;
  /**
   * Whether it is to be asked now; absent: always. Cheap, as it is asked for every queued block,
   * and only when no source before it is ready.
   */
  readiness?(priority: FetchPriority): SourceReadiness;
  /** Streams exactly the bytes of `run.range`, in order; the caller copies the pieces. */
  fetch(run: BlobRun, options: SourceFetchOptions): Promise<AsyncIterable<Uint8Array>>;
  /** Told when a complete block had the wrong digest. */
  onBadBlock?(run: BlobRun, block: Block): void;
}

/**
 * What a source's `fetch` throws for blocks that it has not and cannot get now: the next source is
 * asked, this one a little later again, and its other blocks do not suffer for it.
 */
export function passError(
  message: string,
  options: { readonly cause?: unknown } = {},
): DaemonError {
  return new DaemonError("unavailable", message, { ...options, details: { passes: true } });
}

export function isPass(error: unknown): boolean {
  return error instanceof DaemonError && error.details["passes"] === true;
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
