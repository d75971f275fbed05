/** Where an image comes from, whatever its transport: documents by name, blobs by digest. */
import type { ByteRange } from "../base/range-set.ts";
import type { Digest, FetchPlan, ImageConfig, ImageManifest, Platform } from "../oci/index.ts";

/** Lower is served first. `demand` is a reader who waits; the other two may not take all. */
export const PRIORITIES = { demand: 0, prefetch: 1, background: 2 } as const;
export type FetchPriority = keyof typeof PRIORITIES;

export interface BlobOptions {
  readonly signal: AbortSignal;
  /** Default `demand`. */
  readonly priority?: FetchPriority;
  /** The blob's size as its descriptor says; a server that disagrees is `data-loss`. */
  readonly size?: number;
  /**
   * Hash a whole blob as it passes and end with `data-loss` when the digest is wrong. Default
   * true; false for a caller that hashes anyway. Ranges are the caller's to verify.
   */
  readonly verify?: boolean;
}

/**
 * Reads blobs by digest and range.
 *
 * `open` rejects when the blob cannot be had at all; the iterable then yields exactly the bytes
 * of the range, resuming after broken connections, or throws. Whoever gets the iterable must
 * iterate it to its end, leave the loop, or abort the signal. It can be iterated once.
 */
export interface BlobRangeReader {
  /** Half-open byte range of the blob; undefined is all of it. */
  open(
    digest: Digest,
    range: ByteRange | undefined,
    options: BlobOptions,
  ): Promise<AsyncIterable<Uint8Array>>;
  /** Tells that a range held wrong bytes: another host is asked next time, if there is one. */
  reportCorrupt?(digest: Digest): void;
}

export interface ResolvedImage {
  readonly manifestDigest: Digest;
  readonly manifestBytes: Uint8Array;
  readonly manifest: ImageManifest;
  readonly configBytes: Uint8Array;
  readonly config: ImageConfig;
  /** Layers with their diff IDs, and why it could not be lazy. */
  readonly plan: FetchPlan;
}

export interface ResolveOptions {
  readonly platform: Platform;
  readonly signal: AbortSignal;
}

/** One image of one place. Every document it returns has been verified by digest. */
export interface ImageSource extends BlobRangeReader, AsyncDisposable {
  /** For messages: `docker.io/library/debian:12`, `oci:/tmp/x`. */
  readonly description: string;
  resolve(options: ResolveOptions): Promise<ResolvedImage>;
}
