/**
 * Frames of a reply: how blocks, maps and fetch orders travel (docs/formats/exchange.md).
 *
 *     frame := type:u8 length:u32 payload        (big-endian)
 */
import { DaemonError } from "../../base/errors.ts";
import { FRAME_BYTES_MAX, PATH_MEMBERS_MAX } from "./limits.ts";

export const FRAME_HEAD_BYTES = 5;

export const FRAME = {
  /** index:u32 length:u32: bytes of this block follow. */
  block: 1,
  /** Bytes of the block, the map. */
  data: 2,
  /** Still waiting; payload: the ids of whom this waits for, nearest first (length:u8 UTF-8). */
  tick: 3,
  /** index:u32: the block is complete, and its digest is right. */
  end: 4,
  /** index:u32: neither here nor on its way; ask the root. */
  notHere: 5,
  /** index:u32 code and message, JSON: this block failed, the others go on. */
  failed: 6,
  /** total:u64: bytes of the map that follows. */
  size: 7,
  /** JSON: a part of a fetch order. */
  order: 8,
  /** The reply is complete. */
  done: 9,
  /** JSON: what the document is that follows. */
  document: 10,
} as const;

export type FrameType = (typeof FRAME)[keyof typeof FRAME];

const TYPES = new Set<number>(Object.values(FRAME));
/** Types whose payload is passed on in pieces, as it arrives. */
const DATA_TYPE = FRAME.data;

export function encodeFrame(type: FrameType, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(FRAME_HEAD_BYTES + payload.length);
  writeFrameHead(frame, 0, type, payload.length);
  frame.set(payload, FRAME_HEAD_BYTES);
  return frame;
}

export function writeFrameHead(into: Buffer, at: number, type: FrameType, length: number): void {
  into.writeUInt8(type, at);
  into.writeUInt32BE(length, at + 1);
}

/** Numbers of 32 bits. */
export function indexPayload(...values: readonly number[]): Buffer {
  const payload = Buffer.alloc(4 * values.length);
  values.forEach((value, at) => payload.writeUInt32BE(value, 4 * at));
  return payload;
}

/** Ids that are too long for their length byte are left out. */
export function encodeTick(waitsFor: readonly string[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const id of waitsFor.slice(0, PATH_MEMBERS_MAX)) {
    const bytes = Buffer.from(id, "utf8");
    if (bytes.length > 0 && bytes.length < 256) parts.push(Buffer.of(bytes.length), bytes);
  }
  return encodeFrame(FRAME.tick, Buffer.concat(parts));
}

/** `data-loss` when malformed. */
export function decodeTick(payload: Uint8Array): string[] {
  const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length);
  const ids: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const length = bytes.readUInt8(at);
    if (length === 0 || length > bytes.length - at - 1 || ids.length >= PATH_MEMBERS_MAX) {
      throw malformedFrame("a list of members");
    }
    ids.push(bytes.toString("utf8", at + 1, at + 1 + length));
    at += 1 + length;
  }
  return ids;
}

export function malformedFrame(what: string): DaemonError {
  return new DaemonError("data-loss", `malformed reply: ${what}`);
}

export interface FrameSink {
  /** A whole frame of any type but data. The payload is a view. */
  onFrame(type: FrameType, payload: Buffer): void;
  /** A part of a data frame's payload, as it arrived; a view of what was pushed. */
  onData(piece: Buffer): void;
}

/** Cuts the bytes of a reply into frames, with nothing copied but small frames that were split. */
export class FrameDecoder {
  readonly #sink: FrameSink;
  /** Head or small payload that has not arrived in full. */
  #partial: Buffer = Buffer.alloc(0);
  /** Bytes of a data frame's payload that are still to come. */
  #dataLeft = 0;

  constructor(sink: FrameSink) {
    this.#sink = sink;
  }

  /** Whether the bytes so far end with a whole frame. */
  get isBetweenFrames(): boolean {
    return this.#partial.length === 0 && this.#dataLeft === 0;
  }

  /** Throws `data-loss` for bytes that are no frame; the decoder is of no use afterwards. */
  push(piece: Buffer): void {
    let bytes = piece;
    while (bytes.length > 0) {
      if (this.#dataLeft > 0) {
        const length = Math.min(this.#dataLeft, bytes.length);
        this.#dataLeft -= length;
        this.#sink.onData(bytes.subarray(0, length));
        bytes = bytes.subarray(length);
      } else if (this.#partial.length > 0) {
        bytes = this.#complete(bytes);
      } else {
        bytes = this.#take(bytes);
      }
    }
  }

  /** Adds to the partial frame just what it lacks; returns the rest. */
  #complete(bytes: Buffer): Buffer {
    const needed = neededBytes(this.#partial) - this.#partial.length;
    const joined = Buffer.concat([this.#partial, bytes.subarray(0, needed)]);
    this.#partial = Buffer.alloc(0);
    const rest = this.#take(joined);
    if (rest.length > 0) throw malformedFrame("a frame of odd length");
    return bytes.subarray(needed);
  }

  /** Takes one frame, or keeps what is there of it; returns the rest. */
  #take(bytes: Buffer): Buffer {
    const needed = neededBytes(bytes);
    const type = frameType(bytes);
    if (bytes.length >= FRAME_HEAD_BYTES && type === DATA_TYPE) {
      this.#dataLeft = bytes.readUInt32BE(1);
      return bytes.subarray(FRAME_HEAD_BYTES);
    }
    if (bytes.length < needed) {
      this.#partial = Buffer.from(bytes);
      return Buffer.alloc(0);
    }
    this.#sink.onFrame(type, bytes.subarray(FRAME_HEAD_BYTES, needed));
    return bytes.subarray(needed);
  }
}

/** Bytes of the frame that begins here, as far as they have to be there at once. */
function neededBytes(bytes: Buffer): number {
  const type = frameType(bytes);
  if (bytes.length < FRAME_HEAD_BYTES) return FRAME_HEAD_BYTES;
  const length = bytes.readUInt32BE(1);
  if (length > FRAME_BYTES_MAX) throw malformedFrame(`a frame of ${length} bytes`);
  return type === DATA_TYPE ? FRAME_HEAD_BYTES : FRAME_HEAD_BYTES + length;
}

function frameType(bytes: Buffer): FrameType {
  const type = bytes.readUInt8(0);
  if (!TYPES.has(type)) throw malformedFrame(`frame type ${type}`);
  return type as FrameType;
}
