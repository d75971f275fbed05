/** Uncompressed layers: blob and tar are one. */
import type { BlobPass } from "./blob-pass.ts";
import { BLOCK_TARGET_TAR_BYTES, type BlockCutter } from "./block-cutter.ts";

export class PlainPass implements BlobPass {
  readonly compression = "none";
  readonly #cutter: BlockCutter;
  #offset = 0;

  constructor(cutter: BlockCutter) {
    this.#cutter = cutter;
  }

  *push(chunk: Uint8Array): Generator<Uint8Array> {
    let position = 0;
    while (position < chunk.length) {
      if (!this.#cutter.isOpen) {
        this.#cutter.open({ codec: "none", blobOffset: this.#offset, isPlain: true });
      }
      const room = BLOCK_TARGET_TAR_BYTES - this.#cutter.tarLength;
      const piece = chunk.subarray(position, position + room);
      this.#cutter.addTar(piece);
      if (this.#cutter.isFull) this.#cutter.close();
      position += piece.length;
      this.#offset += piece.length;
      yield piece;
    }
  }

  *finish(): Generator<Uint8Array> {
    this.#cutter.close();
  }

  close(): void {
    // Nothing is held.
  }
}
