/** Gzip member framing. Source: RFC 1952. */
import { DaemonError } from "../../base/errors.ts";

export const GZIP_TRAILER_BYTES = 8;
/** RFC 1952 allows endless names; Go, which containerd unpacks with, takes 511 bytes of each. */
const TEXT_BYTES_MAX = 511;
const FIXED_BYTES = 10;

const FLAG_HEADER_CRC = 0x02;
const FLAG_EXTRA = 0x04;
const FLAG_NAME = 0x08;
const FLAG_COMMENT = 0x10;
const RESERVED_FLAGS = 0xe0;

/** An extra field of 64 KiB, two texts and the fixed parts. */
export const GZIP_HEADER_BYTES_MAX = FIXED_BYTES + 2 + 65_535 + 2 * (TEXT_BYTES_MAX + 1) + 2;

/**
 * Length of the member header that starts at `start`; undefined while bytes are missing.
 * Throws `data-loss` if it is none.
 */
export function gzipHeaderLength(bytes: Uint8Array, start: number): number | undefined {
  const magic = [0x1f, 0x8b, 0x08];
  for (const [index, expected] of magic.entries()) {
    const byte = bytes[start + index];
    if (byte === undefined) return undefined;
    if (byte !== expected) throw new DaemonError("data-loss", "invalid gzip member header");
  }
  const flags = bytes[start + 3];
  if (flags === undefined || bytes.length < start + FIXED_BYTES) return undefined;
  if ((flags & RESERVED_FLAGS) !== 0) {
    throw new DaemonError("data-loss", "gzip member header with reserved flags");
  }
  let position: number | undefined = start + FIXED_BYTES;
  if ((flags & FLAG_EXTRA) !== 0) {
    const low = bytes[position];
    const high = bytes[position + 1];
    if (low === undefined || high === undefined) return undefined;
    position += 2 + low + 256 * high;
  }
  if ((flags & FLAG_NAME) !== 0) position = textEnd(bytes, position);
  if (position !== undefined && (flags & FLAG_COMMENT) !== 0) position = textEnd(bytes, position);
  if (position === undefined) return undefined;
  if ((flags & FLAG_HEADER_CRC) !== 0) position += 2;
  return position > bytes.length ? undefined : position - start;
}

function textEnd(bytes: Uint8Array, start: number): number | undefined {
  const end = bytes.indexOf(0, start);
  if ((end < 0 ? bytes.length : end) - start > TEXT_BYTES_MAX) {
    throw new DaemonError("data-loss", "gzip member header with an overlong text");
  }
  return end < 0 ? undefined : end + 1;
}
