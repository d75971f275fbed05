/**
 * The journal's frames. One frame is one write, made durable before the next is begun.
 *
 * | offset | size | meaning (little endian) |
 * |---|---|---|
 * | 0 | 4 | magic `FJ\x01\xff`; 0xff is in no UTF-8 text, so no payload holds it |
 * | 4 | 8 | sequence number, one more than that of the frame before |
 * | 12 | 4 | payload length, bytes |
 * | 16 | 4 | CRC-32 of bytes 0…15 and the payload |
 * | 20 | … | payload: UTF-8 JSON |
 */
import { crc32 } from "node:zlib";
import { DaemonError } from "../../base/errors.ts";
import { FRAME_PAYLOAD_BYTES_MAX } from "../limits.ts";

export const FRAME_HEADER_BYTES = 20;
const MAGIC = Buffer.from([0x46, 0x4a, 0x01, 0xff]);

export function encodeFrame(sequence: number, payload: Uint8Array): Buffer {
  if (payload.length > FRAME_PAYLOAD_BYTES_MAX) {
    throw new DaemonError(
      "resource-exhausted",
      `journal frame of ${payload.length} bytes; at most ${FRAME_PAYLOAD_BYTES_MAX}`,
    );
  }
  const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  frame.set(MAGIC, 0);
  frame.writeBigUInt64LE(BigInt(sequence), 4);
  frame.writeUInt32LE(payload.length, 12);
  frame.set(payload, FRAME_HEADER_BYTES);
  frame.writeUInt32LE(frameSum(frame), 16);
  return frame;
}

function frameSum(frame: Buffer): number {
  return crc32(frame.subarray(FRAME_HEADER_BYTES), crc32(frame.subarray(0, 16)));
}

interface Frame {
  readonly sequence: number;
  readonly payload: Buffer;
  readonly end: number;
}

function readFrame(bytes: Buffer, start: number): Frame | undefined {
  const payloadStart = start + FRAME_HEADER_BYTES;
  if (payloadStart > bytes.length || !bytes.subarray(start, start + 4).equals(MAGIC)) {
    return undefined;
  }
  const length = bytes.readUInt32LE(start + 12);
  const end = payloadStart + length;
  if (length > FRAME_PAYLOAD_BYTES_MAX || end > bytes.length) return undefined;
  if (bytes.readUInt32LE(start + 16) !== frameSum(bytes.subarray(start, end))) return undefined;
  const sequence = Number(bytes.readBigUInt64LE(start + 4));
  return { sequence, payload: bytes.subarray(payloadStart, end), end };
}

export interface JournalContent {
  readonly payloads: readonly Buffer[];
  /** Bytes that hold whole frames; whatever follows is a torn last write. */
  readonly end: number;
  readonly nextSequence: number;
}

/**
 * Reads whole frames from the start. A frame that fails its check is a write that a crash cut
 * short, unless a later frame is whole: that one was begun only after the broken one was durable,
 * so the disk lost something it had promised to keep. Then throws `data-loss`.
 */
export function readFrames(bytes: Buffer): JournalContent {
  const payloads: Buffer[] = [];
  let position = 0;
  let expected: number | undefined;
  while (position < bytes.length) {
    const frame = readFrame(bytes, position);
    if (frame === undefined || (expected !== undefined && frame.sequence !== expected)) break;
    payloads.push(frame.payload);
    position = frame.end;
    expected = frame.sequence + 1;
  }
  if (expected === undefined) {
    throw new DaemonError("data-loss", "journal has no whole first frame");
  }
  const later = findLaterFrame(bytes, position, expected);
  if (later !== undefined) {
    throw new DaemonError(
      "data-loss",
      `journal is damaged at byte ${position}: a whole frame follows at byte ${later}`,
    );
  }
  return { payloads, end: position, nextSequence: expected };
}

function findLaterFrame(bytes: Buffer, from: number, expected: number): number | undefined {
  for (let at = bytes.indexOf(MAGIC, from); at >= 0; at = bytes.indexOf(MAGIC, at + 1)) {
    const frame = readFrame(bytes, at);
    if (frame !== undefined && frame.sequence > expected) return at;
  }
  return undefined;
}
