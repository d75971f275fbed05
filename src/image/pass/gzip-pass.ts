/**
 * Reads a gzip blob once and cuts it into blocks that decode on their own: at member headers, and
 * inside members at deflate block borders, where the bit position and the 32 KiB before are kept.
 *
 * At a border that is to become a cut, a little more is inflated first, so that the bit position
 * can be told from it (see deflate-probe.ts). What follows the border belongs to the old block or
 * to the new one only after that; until then it is held in a `Cut`.
 *
 * What Go's compress/gzip refuses is refused: trailing bytes that are no member, zeros too.
 */
import { crc32 } from "node:zlib";
import { DaemonError } from "../../base/errors.ts";
import { GZIP_HEADER_BYTES_MAX, GZIP_TRAILER_BYTES, gzipHeaderLength } from "../../block/index.ts";
import type { BlobPass } from "./blob-pass.ts";
import type { BlockCutter } from "./block-cutter.ts";
import { probeStartBits } from "./deflate-probe.ts";
import { InflateStepper } from "./inflate-stepper.ts";

/** Source: RFC 1951, the farthest a distance reaches. */
const WINDOW_BYTES = 32 * 1024;
/** Output of one engine call at most; a deflate block gives 50 KB on average. */
const STEP_OUTPUT_BYTES_MAX = 256 * 1024;
const OUTPUT_BUFFER_BYTES = 1024 * 1024;
/** Evidence for the probe: this much output, from no more than this much input. */
const PROBE_OUTPUT_BYTES = 1024;
const PROBE_INPUT_BYTES_MAX = 16 * 1024;
const ISIZE_MODULUS = 2 ** 32;

type Phase = "deflate" | "header" | "trailer";

/** A border that may become a cut, and what came after it so far. */
interface Cut {
  readonly blobOffset: number;
  readonly lastByte: number;
  readonly window: Uint8Array;
  readonly input: Uint8Array[];
  inputBytes: number;
  /** Place of its output in the output buffer. */
  outputStart: number;
}

export class GzipPass implements BlobPass {
  readonly compression = "gzip";
  readonly #cutter: BlockCutter;
  readonly #stepper = new InflateStepper();
  #phase: Phase = "header";
  /** Of the next byte to be consumed. */
  #offset = 0;
  /** Start of a header or trailer that came in part. */
  #partial: Buffer = Buffer.alloc(0);
  readonly #output: Buffer = Buffer.allocUnsafe(OUTPUT_BUFFER_BYTES);
  #outputEnd = 0;
  /** Where this member's output begins in the buffer: no distance reaches before it. */
  #memberStart = 0;
  #memberBytes = 0;
  #memberCrc = 0;
  #lastByte = 0;
  #cut: Cut | undefined;

  constructor(cutter: BlockCutter) {
    this.#cutter = cutter;
  }

  *push(chunk: Uint8Array): Generator<Uint8Array> {
    let position = 0;
    while (position < chunk.length) {
      if (this.#phase === "header") position = this.#readHeader(chunk, position);
      else if (this.#phase === "trailer") position = this.#readTrailer(chunk, position);
      else position = yield* this.#inflate(chunk, position);
    }
  }

  *finish(): Generator<Uint8Array> {
    if (this.#phase !== "header" || this.#partial.length > 0) {
      throw new DaemonError("data-loss", "gzip: blob ends inside a member");
    }
    this.#cutter.close();
  }

  close(): void {
    this.#stepper.close();
  }

  #readHeader(chunk: Uint8Array, position: number): number {
    const held = this.#partial.length;
    const rest = chunk.subarray(position);
    const bytes = held === 0 ? rest : Buffer.concat([this.#partial, rest]);
    const length = gzipHeaderLength(bytes, 0);
    if (length === undefined) {
      if (bytes.length > GZIP_HEADER_BYTES_MAX) {
        throw new DaemonError("data-loss", "gzip: overlong member header");
      }
      this.#partial = Buffer.from(bytes);
      return chunk.length;
    }
    this.#partial = Buffer.alloc(0);
    this.#startMember(bytes.subarray(0, length));
    return position + length - held;
  }

  #startMember(header: Uint8Array): void {
    const cutter = this.#cutter;
    // A block that began inside a member ends with it: decoding then is one plain gunzip or one
    // resumed inflate, never both.
    const isCut = cutter.tarLength > 0 && (cutter.isFull || cutter.startsInsideMember);
    if (isCut) cutter.close();
    if (!cutter.isOpen) {
      cutter.open({ codec: "gzip", blobOffset: this.#offset, atMemberStart: true });
    }
    cutter.addBlob(header);
    this.#offset += header.length;
    this.#phase = "deflate";
    this.#memberStart = this.#outputEnd;
    this.#memberBytes = 0;
    this.#memberCrc = 0;
    this.#stepper.reset();
  }

  #readTrailer(chunk: Uint8Array, position: number): number {
    const taken = Math.min(GZIP_TRAILER_BYTES - this.#partial.length, chunk.length - position);
    const trailer = Buffer.concat([this.#partial, chunk.subarray(position, position + taken)]);
    this.#partial = trailer;
    if (trailer.length < GZIP_TRAILER_BYTES) return position + taken;
    this.#partial = Buffer.alloc(0);
    if (trailer.readUInt32LE(0) !== this.#memberCrc) {
      throw new DaemonError("data-loss", `gzip: wrong CRC of the member before ${this.#offset}`);
    }
    if (trailer.readUInt32LE(4) !== this.#memberBytes % ISIZE_MODULUS) {
      throw new DaemonError("data-loss", `gzip: wrong length of the member before ${this.#offset}`);
    }
    this.#cutter.addBlob(trailer);
    this.#offset += trailer.length;
    this.#phase = "header";
    return position + taken;
  }

  /** One engine call and what follows from it. Returns the new position. */
  *#inflate(chunk: Uint8Array, position: number): Generator<Uint8Array, number> {
    this.#makeRoom();
    const start = this.#outputEnd;
    const end = this.#outputLimit();
    const step = this.#stepper.step(chunk, position, this.#output, { start, end });
    const piece = this.#output.subarray(start, start + step.produced);
    this.#take(chunk.subarray(position, position + step.consumed), piece);
    if (piece.length > 0) yield piece;
    if (step.atEnd) {
      this.#settleCut(true);
      this.#phase = "trailer";
    } else if (this.#cut !== undefined) {
      this.#tryCut(this.#cut);
    } else if (step.atBorder && this.#cutter.isFull) {
      this.#startCut();
    }
    return position + step.consumed;
  }

  #take(consumed: Uint8Array, piece: Uint8Array): void {
    this.#offset += consumed.length;
    this.#lastByte = consumed.at(-1) ?? this.#lastByte;
    this.#outputEnd += piece.length;
    this.#memberBytes += piece.length;
    this.#memberCrc = crc32(piece, this.#memberCrc);
    if (this.#cut === undefined) {
      this.#cutter.addBlob(consumed);
      this.#cutter.addTar(piece);
    } else if (consumed.length > 0) {
      // The caller may reuse its chunk before the cut is settled.
      this.#cut.input.push(Buffer.from(consumed));
      this.#cut.inputBytes += consumed.length;
    }
  }

  #startCut(): void {
    const windowStart = Math.max(this.#memberStart, this.#outputEnd - WINDOW_BYTES);
    this.#cut = {
      blobOffset: this.#offset,
      lastByte: this.#lastByte,
      window: Buffer.from(this.#output.subarray(windowStart, this.#outputEnd)),
      input: [],
      inputBytes: 0,
      outputStart: this.#outputEnd,
    };
  }

  #tryCut(cut: Cut): void {
    const hasEvidence = this.#outputEnd - cut.outputStart >= PROBE_OUTPUT_BYTES;
    if (hasEvidence || cut.inputBytes > PROBE_INPUT_BYTES_MAX) this.#settleCut(false);
  }

  /** Cuts if the evidence names one bit position, else lets the border pass. */
  #settleCut(endsStream: boolean): void {
    const cut = this.#cut;
    if (cut === undefined) return;
    this.#cut = undefined;
    const output = this.#output.subarray(cut.outputStart, this.#outputEnd);
    // A stream that ends at the border has no block after it.
    if (output.length > 0 && cut.inputBytes <= PROBE_INPUT_BYTES_MAX) {
      const bytes = Buffer.concat([Buffer.of(cut.lastByte), ...cut.input]);
      const startBits = probeStartBits({ bytes, window: cut.window, output, endsStream });
      if (startBits !== undefined) this.#cutAt(cut, startBits);
    }
    for (const bytes of cut.input) this.#cutter.addBlob(bytes);
    this.#cutter.addTar(output);
  }

  #cutAt(cut: Cut, startBits: number): void {
    this.#cutter.close();
    this.#cutter.open({
      codec: "gzip",
      blobOffset: cut.blobOffset - (startBits === 0 ? 0 : 1),
      startBits,
      window: cut.window,
    });
    if (startBits > 0) this.#cutter.addBlob(Buffer.of(cut.lastByte));
  }

  /** The room for the next step: small while evidence for a cut is gathered. */
  #outputLimit(): number {
    if (this.#cut !== undefined) return this.#cut.outputStart + PROBE_OUTPUT_BYTES;
    return Math.min(this.#output.length, this.#outputEnd + STEP_OUTPUT_BYTES_MAX);
  }

  /** Moves the last window to the front when the buffer runs out. */
  #makeRoom(): void {
    if (this.#output.length - this.#outputEnd >= STEP_OUTPUT_BYTES_MAX) return;
    const shift = this.#outputEnd - WINDOW_BYTES;
    this.#output.copyWithin(0, shift, this.#outputEnd);
    this.#outputEnd -= shift;
    this.#memberStart = Math.max(0, this.#memberStart - shift);
    if (this.#cut !== undefined) this.#cut.outputStart -= shift;
  }
}
