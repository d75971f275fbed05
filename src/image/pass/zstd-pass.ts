/**
 * Reads a zstd blob once. Frames are grouped into blocks; a frame too large to be a block is cut
 * into `zstd-sequential` blocks, which all carry the frame's range.
 */
import { createHash, type Hash } from "node:crypto";
import { DaemonError } from "../../base/errors.ts";
import {
  decodeZstdFrame,
  openZstdFrame,
  ZSTD_WHOLE_FRAME_BYTES_MAX,
  ZstdScanner,
  type ZstdFrameDecoder,
  type ZstdPart,
} from "../../block/index.ts";
import type { BlobPass } from "./blob-pass.ts";
import { BLOCK_TARGET_TAR_BYTES, type BlockCutter } from "./block-cutter.ts";

/** A larger skippable frame ends a block, so that reading the block does not fetch it. */
const SKIPPABLE_BYTES_MAX = 64 * 1024;
/** Compressed form of a frame that is held whole; more means blocks that say nothing. */
const FRAME_BLOB_BYTES_MAX = 2 * ZSTD_WHOLE_FRAME_BYTES_MAX;
/** Block lengths are 32-bit. */
const SEQUENTIAL_BLOB_BYTES_MAX = 0xffff_ffff;
const NO_DIGEST = new Uint8Array(32);

/** The frame being read. Its compressed parts are held until it is known to fit into a block. */
interface Frame {
  readonly blobOffset: number;
  /** Known size, small enough: decoded when it is whole. Else decoded as it comes. */
  readonly wholeBytes: number | undefined;
  readonly decoder: ZstdFrameDecoder | undefined;
  parts: Uint8Array[];
  blobLength: number;
  output: Uint8Array[];
  outputBytes: number;
  sequential: SequentialBlocks | undefined;
}

export class ZstdPass implements BlobPass {
  readonly compression = "zstd";
  readonly #cutter: BlockCutter;
  readonly #scanner = new ZstdScanner();
  #frame: Frame | undefined;
  /** Of the next part. */
  #offset = 0;
  #isInSkippable = false;

  constructor(cutter: BlockCutter) {
    this.#cutter = cutter;
  }

  async *push(chunk: Uint8Array): AsyncGenerator<Uint8Array> {
    for (const part of this.#scanner.push(chunk)) {
      const output = await this.#onPart(part);
      this.#offset += part.bytes.length;
      if (output.length > 0) yield output;
    }
  }

  *finish(): Generator<Uint8Array> {
    this.#scanner.finish();
    this.#cutter.close();
  }

  close(): void {
    this.#frame?.decoder?.close();
  }

  async #onPart(part: ZstdPart): Promise<Uint8Array> {
    if (part.kind === "skippable") {
      this.#onSkippable(part);
      return NO_OUTPUT;
    }
    if (part.kind === "header") this.#frame = this.#startFrame(part.header.contentBytes);
    const frame = this.#frame;
    if (frame === undefined) return NO_OUTPUT;
    frame.blobLength += part.bytes.length;
    if (frame.sequential === undefined) frame.parts.push(Buffer.from(part.bytes));
    const endsFrame = part.kind !== "header" && part.endsFrame;
    const output = await decodePart(frame, part.bytes, endsFrame);
    this.#addOutput(frame, output);
    if (endsFrame) this.#endFrame(frame);
    return output;
  }

  #startFrame(contentBytes: number | undefined): Frame {
    const isWhole = contentBytes !== undefined && contentBytes <= ZSTD_WHOLE_FRAME_BYTES_MAX;
    const frame: Frame = {
      blobOffset: this.#offset,
      wholeBytes: isWhole ? contentBytes : undefined,
      decoder: isWhole ? undefined : openZstdFrame(),
      parts: [],
      blobLength: 0,
      output: [],
      outputBytes: 0,
      sequential: undefined,
    };
    const isLarge = contentBytes !== undefined && !isWhole;
    if (isLarge) this.#becomeSequential(frame);
    return frame;
  }

  #addOutput(frame: Frame, output: Uint8Array): void {
    frame.outputBytes += output.length;
    if (frame.sequential !== undefined) {
      frame.sequential.add(output);
      if (frame.blobLength > SEQUENTIAL_BLOB_BYTES_MAX) {
        throw new DaemonError("unimplemented", "zstd: frame of more than 4 GiB");
      }
      return;
    }
    if (frame.blobLength > FRAME_BLOB_BYTES_MAX) {
      throw new DaemonError("data-loss", "zstd: frame grows without content");
    }
    if (output.length > 0) frame.output.push(Buffer.from(output));
    if (frame.outputBytes > ZSTD_WHOLE_FRAME_BYTES_MAX) this.#becomeSequential(frame);
  }

  #becomeSequential(frame: Frame): void {
    this.#cutter.close();
    const blocks = new SequentialBlocks();
    for (const bytes of frame.output) blocks.add(bytes);
    frame.output = [];
    frame.parts = [];
    frame.sequential = blocks;
  }

  #endFrame(frame: Frame): void {
    this.#frame = undefined;
    frame.decoder?.close();
    if (frame.sequential !== undefined) {
      for (const block of frame.sequential.finish()) {
        this.#cutter.add({
          codec: "zstd-sequential",
          tarLength: block.tarLength,
          blobOffset: frame.blobOffset,
          blobLength: frame.blobLength,
          startBits: 0,
          atMemberStart: false,
          window: undefined,
          blobSha256: NO_DIGEST,
          tarSha256: block.tarSha256,
        });
      }
      return;
    }
    if (!this.#cutter.isOpen) this.#cutter.open({ codec: "zstd", blobOffset: frame.blobOffset });
    for (const bytes of frame.parts) this.#cutter.addBlob(bytes);
    for (const bytes of frame.output) this.#cutter.addTar(bytes);
    if (this.#cutter.isFull) this.#cutter.close();
  }

  /** Small ones inside a block stay in it (pzstd puts one before every frame). */
  #onSkippable(part: ZstdPart & { readonly kind: "skippable" }): void {
    if (!this.#isInSkippable) {
      const length = Buffer.from(part.bytes).readUInt32LE(4);
      if (length > SKIPPABLE_BYTES_MAX) this.#cutter.close();
    }
    this.#isInSkippable = !part.endsFrame;
    if (this.#cutter.isOpen) this.#cutter.addBlob(part.bytes);
  }
}

const NO_OUTPUT = new Uint8Array(0);

async function decodePart(
  frame: Frame,
  bytes: Uint8Array,
  endsFrame: boolean,
): Promise<Uint8Array> {
  if (frame.decoder !== undefined) return frame.decoder.push(bytes);
  if (!endsFrame) return NO_OUTPUT;
  return decodeZstdFrame(Buffer.concat(frame.parts), frame.wholeBytes ?? 0);
}

interface SequentialBlock {
  readonly tarLength: number;
  readonly tarSha256: Uint8Array;
}

/** Cuts a frame's output into blocks of BLOCK_TARGET_TAR_BYTES. */
class SequentialBlocks {
  readonly #blocks: SequentialBlock[] = [];
  #hash: Hash = createHash("sha256");
  #length = 0;

  add(bytes: Uint8Array): void {
    let position = 0;
    while (position < bytes.length) {
      const piece = bytes.subarray(position, position + BLOCK_TARGET_TAR_BYTES - this.#length);
      this.#hash.update(piece);
      this.#length += piece.length;
      position += piece.length;
      if (this.#length === BLOCK_TARGET_TAR_BYTES) this.#close();
    }
  }

  finish(): readonly SequentialBlock[] {
    if (this.#length > 0) this.#close();
    return this.#blocks;
  }

  #close(): void {
    this.#blocks.push({ tarLength: this.#length, tarSha256: this.#hash.digest() });
    this.#hash = createHash("sha256");
    this.#length = 0;
  }
}
