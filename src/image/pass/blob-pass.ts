/** One way of reading a blob: blob bytes in, tar bytes out, blocks cut on the way. */

export interface BlobPass {
  readonly compression: "gzip" | "none" | "zstd";
  /** Tar bytes in order; each piece is valid until the next one is asked for. */
  push(chunk: Uint8Array): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  /** After the last byte: closes the last block, or throws `data-loss` if the blob is cut short. */
  finish(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  close(): void;
}
