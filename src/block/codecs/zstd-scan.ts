/**
 * Splits a zstd stream into its parts without decoding: frame headers, blocks, checksums and
 * skippable frames. Source: RFC 8878, section 3.
 */
import { DaemonError } from "../../base/errors.ts";

/** Larger windows cost memory. Source: zstd.h, ZSTD_WINDOWLOG_LIMIT_DEFAULT (27). */
export const ZSTD_WINDOW_BYTES_MAX = 128 * 1024 * 1024;
/** A block never decodes to more. Source: RFC 8878, 3.1.1.2.4. */
export const ZSTD_BLOCK_BYTES_MAX = 128 * 1024;

const MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const SKIPPABLE_MASK = 0xfffffff0;
const MAGIC_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const CHECKSUM_BYTES = 4;
const BLOCK_TYPE_RLE = 1;
const BLOCK_TYPE_RESERVED = 3;

export interface ZstdFrameHeader {
  readonly windowBytes: number;
  /** Undefined where the frame does not say. */
  readonly contentBytes: number | undefined;
  readonly hasChecksum: boolean;
}

/** Bytes are valid until the next call. `endsFrame` marks a frame's last part. */
export type ZstdPart =
  | { readonly kind: "header"; readonly bytes: Uint8Array; readonly header: ZstdFrameHeader }
  | { readonly kind: "block"; readonly bytes: Uint8Array; readonly endsFrame: boolean }
  | { readonly kind: "checksum"; readonly bytes: Uint8Array; readonly endsFrame: true }
  | { readonly kind: "skippable"; readonly bytes: Uint8Array; readonly endsFrame: boolean };

type State =
  | { readonly kind: "magic" }
  | { readonly kind: "header"; readonly length: number }
  | { readonly kind: "block-header" }
  | { readonly kind: "block"; readonly length: number; readonly isLast: boolean }
  | { readonly kind: "checksum" }
  | { readonly kind: "skippable-header" }
  | { readonly kind: "skippable"; left: number };

export class ZstdScanner {
  #state: State = { kind: "magic" };
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #hasChecksum = false;
  #blockBytesMax = ZSTD_BLOCK_BYTES_MAX;

  /** Throws `data-loss` at the first malformed part. */
  *push(chunk: Uint8Array): Generator<ZstdPart> {
    let position = 0;
    while (position < chunk.length) {
      const state = this.#state;
      if (state.kind === "skippable") {
        const taken = Math.min(state.left, chunk.length - position);
        state.left -= taken;
        if (state.left === 0) this.#state = { kind: "magic" };
        const bytes = chunk.subarray(position, position + taken);
        position += taken;
        yield { kind: "skippable", bytes, endsFrame: state.left === 0 };
        continue;
      }
      const wanted = this.#wanted(state);
      const taken = Math.min(wanted - this.#partialBytes, chunk.length - position);
      const whole = this.#gather(chunk.subarray(position, position + taken), wanted);
      position += taken;
      if (whole === undefined) return;
      const part = this.#onWhole(state, whole);
      if (part !== undefined) yield part;
    }
  }

  /** Throws if the stream stops inside a frame. */
  finish(): void {
    if (this.#state.kind !== "magic" || this.#partialBytes > 0) {
      throw malformed("stream ends inside a frame");
    }
  }

  #wanted(state: Exclude<State, { kind: "skippable" }>): number {
    switch (state.kind) {
      case "magic":
        return MAGIC_BYTES + 1;
      case "header":
      case "block":
        return state.length;
      case "block-header":
        return BLOCK_HEADER_BYTES;
      case "checksum":
        return CHECKSUM_BYTES;
      case "skippable-header":
        return 2 * MAGIC_BYTES;
    }
  }

  #gather(piece: Uint8Array, wanted: number): Buffer | undefined {
    if (this.#partialBytes === 0 && piece.length === wanted) {
      return Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
    }
    this.#partial.push(Buffer.from(piece));
    this.#partialBytes += piece.length;
    if (this.#partialBytes < wanted) return undefined;
    const whole = Buffer.concat(this.#partial);
    this.#partial = [];
    this.#partialBytes = 0;
    return whole;
  }

  /** Puts bytes back in front: the next state wants them together with more. */
  #keep(bytes: Buffer): void {
    this.#partial = [Buffer.from(bytes)];
    this.#partialBytes = bytes.length;
  }

  #onWhole(state: State, bytes: Buffer): ZstdPart | undefined {
    switch (state.kind) {
      case "magic":
        this.#onMagic(bytes);
        return undefined;
      case "header":
        return this.#onHeader(bytes);
      case "block-header":
        return this.#onBlockHeader(bytes);
      case "block":
        return this.#onBlock(bytes, state.isLast);
      case "checksum":
        this.#state = { kind: "magic" };
        return { kind: "checksum", bytes, endsFrame: true };
      case "skippable-header": {
        const left = bytes.readUInt32LE(4);
        this.#state = left === 0 ? { kind: "magic" } : { kind: "skippable", left };
        return { kind: "skippable", bytes, endsFrame: left === 0 };
      }
      case "skippable":
        return undefined;
    }
  }

  #onMagic(bytes: Buffer): void {
    const magic = bytes.readUInt32LE(0);
    this.#keep(bytes);
    if (magic === MAGIC) {
      this.#state = { kind: "header", length: headerLength(bytes[MAGIC_BYTES] ?? 0) };
    } else if ((magic & SKIPPABLE_MASK) >>> 0 === SKIPPABLE_MAGIC) {
      this.#state = { kind: "skippable-header" };
    } else {
      throw malformed("invalid frame magic");
    }
  }

  #onHeader(bytes: Buffer): ZstdPart {
    const header = parseFrameHeader(bytes);
    this.#hasChecksum = header.hasChecksum;
    this.#blockBytesMax = Math.min(ZSTD_BLOCK_BYTES_MAX, header.windowBytes);
    this.#state = { kind: "block-header" };
    return { kind: "header", bytes, header };
  }

  #onBlockHeader(bytes: Buffer): ZstdPart | undefined {
    const value = bytes.readUIntLE(0, BLOCK_HEADER_BYTES);
    const type = (value >> 1) & 3;
    const size = value >>> 3;
    const isLast = (value & 1) === 1;
    if (type === BLOCK_TYPE_RESERVED) throw malformed("reserved block type");
    if (size > this.#blockBytesMax) throw malformed(`block of ${size} bytes`);
    const stored = type === BLOCK_TYPE_RLE ? 1 : size;
    if (stored === 0) return this.#onBlock(bytes, isLast);
    this.#keep(bytes);
    this.#state = { kind: "block", length: BLOCK_HEADER_BYTES + stored, isLast };
    return undefined;
  }

  #onBlock(bytes: Buffer, isLast: boolean): ZstdPart {
    const endsFrame = isLast && !this.#hasChecksum;
    if (!isLast) this.#state = { kind: "block-header" };
    else this.#state = this.#hasChecksum ? { kind: "checksum" } : { kind: "magic" };
    return { kind: "block", bytes, endsFrame };
  }
}

/** Whole header with magic, told from the frame header descriptor. */
function headerLength(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0;
  return (
    MAGIC_BYTES +
    1 +
    (isSingleSegment ? 0 : 1) +
    dictionaryIdBytes(descriptor) +
    contentSizeBytes(descriptor)
  );
}

function dictionaryIdBytes(descriptor: number): number {
  const flag = descriptor & 3;
  return flag === 3 ? 4 : flag;
}

function contentSizeBytes(descriptor: number): number {
  const flag = descriptor >> 6;
  if (flag === 0) return (descriptor & 0x20) === 0 ? 0 : 1;
  return 2 ** flag;
}

function parseFrameHeader(bytes: Buffer): ZstdFrameHeader {
  const descriptor = bytes[MAGIC_BYTES] ?? 0;
  if ((descriptor & 0x08) !== 0) throw malformed("reserved frame header bit");
  const isSingleSegment = (descriptor & 0x20) !== 0;
  let position = MAGIC_BYTES + 1 + (isSingleSegment ? 0 : 1);
  const idBytes = dictionaryIdBytes(descriptor);
  if (idBytes > 0 && bytes.readUIntLE(position, idBytes) !== 0) {
    throw malformed("frame needs a dictionary");
  }
  position += idBytes;
  const contentBytes = readContentSize(bytes, position, contentSizeBytes(descriptor));
  const windowBytes = isSingleSegment
    ? Math.max(contentBytes ?? 0, 1024)
    : windowSize(bytes[MAGIC_BYTES + 1] ?? 0);
  if (windowBytes > ZSTD_WINDOW_BYTES_MAX) {
    throw malformed(`window of ${windowBytes} bytes (at most ${ZSTD_WINDOW_BYTES_MAX})`);
  }
  return { windowBytes, contentBytes, hasChecksum: (descriptor & 0x04) !== 0 };
}

function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >> 3));
  return base + (base / 8) * (descriptor & 7);
}

function readContentSize(bytes: Buffer, position: number, length: number): number | undefined {
  if (length === 0) return undefined;
  if (length === 8) {
    const value = bytes.readBigUInt64LE(position);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw malformed("absurd content size");
    return Number(value);
  }
  const value = bytes.readUIntLE(position, length);
  return length === 2 ? value + 256 : value;
}

function malformed(rule: string): DaemonError {
  return new DaemonError("data-loss", `zstd: ${rule}`);
}
