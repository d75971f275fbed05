/** What the exchange needs of the node that it serves for; the daemon implements it. */
import type { ByteRange } from "../../base/range-set.ts";
import type { FetchPriority } from "../../block/index.ts";
import type { Digest } from "../../oci/index.ts";

/** A block as a child asks for it. */
export interface WantedBlock {
  /** Diff ID, hex. */
  readonly layerId: string;
  readonly blobDigest: Digest;
  /** Index in the layer's block table. */
  readonly block: number;
  /** Blob bytes. */
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

export interface ProvideOptions {
  /** Aborted when the child has left. */
  readonly signal: AbortSignal;
  readonly priority: FetchPriority;
  /** Whether a block that is neither here nor on its way is to be fetched for the child. */
  readonly mayFetch: boolean;
}

/**
 * A block that is here or on its way. Whoever never iterates `pieces`, or stops, must not hold back
 * anybody else.
 */
export interface ProvidedBlock {
  /** `end - start` of what was wanted. */
  readonly length: number;
  /** As they come, from the first byte on; the caller copies. Iterated once at most. */
  readonly pieces: AsyncIterable<Uint8Array>;
  /** Resolves when the block's digest is right; rejects when it is wrong, or the bytes are lost. */
  readonly verdict: Promise<void>;
}

export interface BlockProvider {
  /**
   * Undefined: neither here nor on its way, and not to be fetched. `not-found` where the layer is
   * unknown, `invalid-argument` where the range is not the block's.
   */
  open(want: WantedBlock, options: ProvideOptions): Promise<ProvidedBlock | undefined>;
}

export interface MapProvider {
  /** Waits while the map is being made or fetched; `not-found` when it is not to be had here. */
  open(
    diffId: string,
    options: { readonly signal: AbortSignal; readonly image: string; readonly path: string[] },
  ): Promise<{ readonly size: number; readonly pieces: AsyncIterable<Uint8Array> }>;
}

/** Blocks in the order in which they were fetched. */
export interface OrderEntry {
  /** Diff ID, hex. */
  readonly layerId: string;
  readonly block: number;
}

export interface OrderProvider {
  /**
   * Entries from position `from` on, in batches as they come; follows until the signal aborts.
   * `not-found` for an image that is unknown here.
   */
  since(
    image: string,
    from: number,
    options: { readonly signal: AbortSignal },
  ): AsyncIterable<readonly OrderEntry[]>;
}

export interface ProvidedManifest {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
  readonly digest: Digest;
}

export interface ProvidedBlob {
  readonly size: number;
  /** Exactly the bytes of the range. */
  read(range: ByteRange, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>;
}

/** A repository as an OCI client names it. */
export interface Repository {
  /** `ns` of the request (containerd sends the registry's host there); undefined without it. */
  readonly registry: string | undefined;
  readonly name: string;
}

export interface ProvideDocumentOptions {
  readonly signal: AbortSignal;
  /** What the client calls itself; empty where it does not say. */
  readonly userAgent: string;
}

/** For `/v2/`: undefined means that it is not to be had here. */
export interface DocumentProvider {
  /** By tag or digest. */
  manifest(
    repository: Repository,
    reference: string,
    options: ProvideDocumentOptions,
  ): Promise<ProvidedManifest | undefined>;
  blob(
    repository: Repository,
    digest: Digest,
    options: ProvideDocumentOptions,
  ): Promise<ProvidedBlob | undefined>;
}

/** A manifest, an index or an image config, as members ask each other for it. */
export interface DocumentName {
  readonly kind: "manifest" | "config";
  /** Host and, if given, port, as in a reference: `docker.io`. */
  readonly registry: string;
  /** The repository below it. */
  readonly name: string;
  /** A digest, or, of a manifest, a tag. */
  readonly reference: string;
}

/**
 * How far whoever is asked goes for a document that it has not got: to the member that it takes for
 * the owner (one hop, and no further), to the registry, or nowhere, though it waits for what it is
 * fetching (`flight`), or does not even that (`store`).
 */
export const DOCUMENT_REACH = ["forward", "fetch", "flight", "store"] as const;
export type DocumentReach = (typeof DOCUMENT_REACH)[number];

export interface DocumentQuestion extends DocumentName {
  readonly reach: DocumentReach;
}

/** A document as it travels between members; the receiver checks that it is what it asked for. */
export interface SharedDocument {
  readonly bytes: Uint8Array;
  readonly mediaType: string;
  readonly digest: Digest;
  /** Since the registry said that the tag means this, ms; undefined: longer ago than is known. */
  readonly ageMs: number | undefined;
}

export interface SharedDocumentProvider {
  /** Rejects with `not-found` where the asker is to ask the registry with its own credentials. */
  answer(
    question: DocumentQuestion,
    options: { readonly signal: AbortSignal },
  ): Promise<SharedDocument>;
}

/** Push/pull of the membership's views: records in, our own records out. */
export type ViewProvider = (
  records: Uint8Array,
  options: { readonly signal: AbortSignal; readonly from: string },
) => Promise<Uint8Array>;
