/**
 * The one pass over a layer: its blob is read once, in order, hashed, decompressed, cut into blocks
 * and its tar headers are turned into a file tree. Memory does not depend on the layer's size, but
 * on the number of its entries.
 */
import { createHash, type Hash } from "node:crypto";
import { raceAbort, throwIfAborted } from "../../base/abort.ts";
import { DaemonError, errorCode, withContext } from "../../base/errors.ts";
import type { ErofsInodeInput } from "../../erofs/index.ts";
import {
  digestFromHash,
  parseDiffId,
  type Digest,
  type DiffId,
  type LayerCompression,
} from "../../oci/index.ts";
import { LAYER_TAR_BYTES_DEFAULT_MAX } from "../limits.ts";
import { TarParser } from "../tar/parser.ts";
import { TreeBuilder, type TreeCounts } from "../tree/tree-builder.ts";
import type { BlobPass } from "./blob-pass.ts";
import { BlockCutter, type CutBlock } from "./block-cutter.ts";
import { detectCompression } from "./compression.ts";
import { GzipPass } from "./gzip-pass.ts";
import { PlainPass } from "./plain-pass.ts";
import { ZstdPass } from "./zstd-pass.ts";

/**
 * The blob is decoded in pieces of exactly this size, however it arrives: where the pieces end
 * decides which block borders are seen, and equal layers must give equal maps.
 */
const PIECE_BYTES = 256 * 1024;

/** Read for the digest alone, after a layer proved bad. */
const BLAME_BYTES_MAX = 256 * 1024 * 1024;

export interface LayerPassSink {
  /**
   * Blob bytes in order, before they are decoded; valid until the call (or its promise) returns.
   */
  onBlob?(bytes: Uint8Array, blobOffset: number): Promise<void> | void;
  /** Tar bytes in order; valid until the call (or its promise) returns. */
  onTar?(bytes: Uint8Array, tarOffset: number): Promise<void> | void;
  /** Every block, in order, after all its bytes went to `onTar`. */
  onBlock(block: CutBlock): Promise<void> | void;
}

export interface LayerPassProgress {
  readonly blobBytes: number;
  readonly tarBytes: number;
  readonly entries: number;
}

export interface LayerPassOptions {
  readonly signal: AbortSignal;
  /** The descriptor's size. */
  readonly blobBytes: number;
  /** The descriptor's digest, to tell a damaged blob from a bad layer; it is not compared here. */
  readonly blobDigest?: Digest;
  readonly tarBytesMax?: number;
  readonly onProgress?: (progress: LayerPassProgress) => void;
}

export interface LayerPassResult {
  readonly blobDigest: Digest;
  readonly diffId: DiffId;
  readonly compression: LayerCompression;
  readonly tarBytes: number;
  readonly root: ErofsInodeInput;
  readonly counts: TreeCounts;
}

/** Throws `data-loss` for a damaged blob, `invalid-argument` or `unimplemented` for a bad layer. */
export async function passLayer(
  blob: AsyncIterable<Uint8Array>,
  sink: LayerPassSink,
  options: LayerPassOptions,
): Promise<LayerPassResult> {
  const pass = new LayerPass(sink, options);
  await using source = new HashedBlob(blob, options.signal);
  try {
    for (let piece = await source.next(); piece !== undefined; piece = await source.next()) {
      await pass.push(piece);
    }
    return await pass.finish(source.digest());
  } catch (error) {
    throw await blame(error, source, options);
  } finally {
    pass.close();
  }
}

/** The blob's bytes, hashed as they come. */
class HashedBlob implements AsyncDisposable {
  readonly #iterator: AsyncIterator<Uint8Array>;
  readonly #signal: AbortSignal;
  readonly #hash: Hash = createHash("sha256");

  constructor(blob: AsyncIterable<Uint8Array>, signal: AbortSignal) {
    this.#iterator = blob[Symbol.asyncIterator]();
    this.#signal = signal;
  }

  /** Undefined at the end. */
  async next(): Promise<Uint8Array | undefined> {
    const result = await raceAbort(this.#iterator.next(), this.#signal);
    if (result.done === true) return undefined;
    this.#hash.update(result.value);
    return result.value;
  }

  /** Of what came so far. */
  digest(): Digest {
    return digestFromHash(this.#hash.copy().digest());
  }

  /** Does not wait: after an abort a generator may still be inside its last step. */
  async [Symbol.asyncDispose](): Promise<void> {
    // How the source ends changes neither result nor error.
    this.#iterator.return?.().catch(() => undefined);
    return Promise.resolve();
  }
}

/**
 * Whose fault it is that a layer cannot be read. Damage on the way shows as a broken tar or gzip
 * stream long before the digest is known: the rest is read for the digest alone.
 */
async function blame(
  error: unknown,
  source: HashedBlob,
  { blobDigest }: LayerPassOptions,
): Promise<unknown> {
  const isAboutBytes = ["data-loss", "invalid-argument", "unimplemented"].includes(
    errorCode(error),
  );
  if (blobDigest === undefined || !isAboutBytes) return error;
  let restBytes = 0;
  for (let piece = await source.next(); piece !== undefined; piece = await source.next()) {
    restBytes += piece.length;
    if (restBytes > BLAME_BYTES_MAX) return error;
  }
  const actual = source.digest();
  if (actual !== blobDigest) return withContext(error, `blob has digest ${actual}`, "data-loss");
  // No other source has better bytes.
  const isBroken = errorCode(error) === "data-loss";
  return isBroken ? withContext(error, "made broken", "invalid-argument") : error;
}

class LayerPass {
  readonly #sink: LayerPassSink;
  readonly #options: LayerPassOptions;
  readonly #cutter = new BlockCutter();
  readonly #tree = new TreeBuilder();
  readonly #parser: TarParser;
  readonly #tarHash = createHash("sha256");
  readonly #piece = Buffer.allocUnsafe(PIECE_BYTES);
  #pieceLength = 0;
  #blobPass: BlobPass | undefined;
  #blobBytes = 0;
  #tarBytes = 0;

  constructor(sink: LayerPassSink, options: LayerPassOptions) {
    this.#sink = sink;
    this.#options = options;
    const { tarBytesMax } = options;
    this.#parser = new TarParser(
      (entry) => {
        this.#tree.add(entry);
      },
      tarBytesMax === undefined ? {} : { tarBytesMax },
    );
  }

  async push(chunk: Uint8Array): Promise<void> {
    const blobOffset = this.#blobBytes;
    this.#blobBytes += chunk.length;
    if (this.#blobBytes > this.#options.blobBytes) {
      throw new DaemonError("data-loss", `blob is longer than ${this.#options.blobBytes} bytes`);
    }
    const written = this.#sink.onBlob?.(chunk, blobOffset);
    if (written !== undefined) await written;
    let position = 0;
    while (position < chunk.length) {
      const taken = Math.min(PIECE_BYTES - this.#pieceLength, chunk.length - position);
      this.#piece.set(chunk.subarray(position, position + taken), this.#pieceLength);
      this.#pieceLength += taken;
      position += taken;
      if (this.#pieceLength === PIECE_BYTES) await this.#pushPiece();
    }
  }

  async finish(blobDigest: Digest): Promise<LayerPassResult> {
    if (this.#blobBytes !== this.#options.blobBytes) {
      const message = `blob of ${this.#blobBytes} bytes, not ${this.#options.blobBytes}`;
      throw new DaemonError("data-loss", message);
    }
    const blobPass = await this.#pushPiece();
    await this.#decode(blobPass.finish());
    this.#parser.finish();
    this.#report();
    const isPlain = blobPass.compression === "none";
    return {
      blobDigest,
      diffId: parseDiffId(isPlain ? blobDigest : digestFromHash(this.#tarHash.digest())),
      compression: blobPass.compression,
      tarBytes: this.#tarBytes,
      root: this.#tree.root,
      counts: this.#tree.counts,
    };
  }

  close(): void {
    this.#blobPass?.close();
  }

  async #pushPiece(): Promise<BlobPass> {
    const piece = this.#piece.subarray(0, this.#pieceLength);
    this.#pieceLength = 0;
    this.#blobPass ??= this.#openBlobPass(piece);
    await this.#decode(this.#blobPass.push(piece));
    return this.#blobPass;
  }

  #openBlobPass(start: Uint8Array): BlobPass {
    switch (detectCompression(start)) {
      case "gzip":
        return new GzipPass(this.#cutter);
      case "zstd":
        return new ZstdPass(this.#cutter);
      case "none":
        return new PlainPass(this.#cutter);
    }
  }

  async #decode(pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    for await (const piece of pieces) {
      throwIfAborted(this.#options.signal);
      await this.#onTar(piece);
      await this.#drainBlocks();
    }
    await this.#drainBlocks();
    this.#report();
  }

  async #onTar(piece: Uint8Array): Promise<void> {
    const tarOffset = this.#tarBytes;
    this.#tarBytes += piece.length;
    const tarBytesMax = this.#options.tarBytesMax ?? LAYER_TAR_BYTES_DEFAULT_MAX;
    if (this.#tarBytes > tarBytesMax) {
      throw new DaemonError("invalid-argument", `tar of more than ${tarBytesMax} bytes`);
    }
    // Uncompressed, the blob's hash is the tar's.
    if (this.#blobPass?.compression !== "none") this.#tarHash.update(piece);
    this.#parser.push(piece);
    const written = this.#sink.onTar?.(piece, tarOffset);
    if (written !== undefined) await written;
  }

  async #drainBlocks(): Promise<void> {
    for (const block of this.#cutter.takeClosed()) await this.#sink.onBlock(block);
  }

  #report(): void {
    this.#options.onProgress?.({
      blobBytes: this.#blobBytes,
      tarBytes: this.#tarBytes,
      entries: this.#parser.entryCount,
    });
  }
}
