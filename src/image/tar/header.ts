/**
 * One 512-byte tar header block, as its bytes say, before pax and GNU extensions.
 * Accepts what Go's archive/tar accepts, because that is what containerd unpacks with.
 */
import { tarError } from "./error.ts";
import { parseNumeric, parseOctal } from "./number.ts";

export const TAR_BLOCK_BYTES = 512;

export type TarFormat = "gnu" | "star" | "ustar" | "v7";

/** Mutable: extension headers are merged into it. */
export interface RawHeader {
  readonly format: TarFormat;
  typeflag: string;
  path: string;
  linkPath: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  rdevMajor: number;
  rdevMinor: number;
  readonly offset: number;
}

/** Throws on a bad checksum or number. */
export function parseHeader(block: Uint8Array, tarOffset: number): RawHeader {
  if (!hasValidChecksum(block)) throw tarError("wrong header checksum", { offset: tarOffset });
  const format = formatOf(block);
  const path = text(block, 0, 100);
  const number = (field: string, offset: number, length: number): number => {
    const value = parseNumeric(block, offset, length);
    if (value !== undefined) return value;
    throw tarError(`field ${field} is not a number in range`, { path, offset: tarOffset });
  };
  const header: RawHeader = {
    format,
    typeflag: String.fromCharCode(block[156] ?? 0),
    path,
    linkPath: text(block, 157, 100),
    mode: number("mode", 100, 8),
    uid: number("uid", 108, 8),
    gid: number("gid", 116, 8),
    size: number("size", 124, 12),
    mtimeSec: number("mtime", 136, 12),
    mtimeNsec: 0,
    rdevMajor: format === "v7" ? 0 : number("devmajor", 329, 8),
    rdevMinor: format === "v7" ? 0 : number("devminor", 337, 8),
    offset: tarOffset,
  };
  const prefix = prefixOf(block, format);
  if (prefix !== "") header.path = `${prefix}/${header.path}`;
  return header;
}

export function isZeroBlock(block: Uint8Array): boolean {
  for (let index = 0; index < TAR_BLOCK_BYTES; index += 1) {
    if (block[index] !== 0) return false;
  }
  return true;
}

/** Bytes up to the next block boundary. */
export function paddingAfter(length: number): number {
  return (TAR_BLOCK_BYTES - (length % TAR_BLOCK_BYTES)) % TAR_BLOCK_BYTES;
}

/** A NUL-terminated byte string; without a NUL the whole field. */
export function text(block: Uint8Array, offset: number, length: number): string {
  let end = offset;
  while (end < offset + length && block[end] !== 0) end += 1;
  return Buffer.from(block.buffer, block.byteOffset + offset, end - offset).toString("latin1");
}

/** Sun's tar summed signed bytes; both sums are accepted. */
function hasValidChecksum(block: Uint8Array): boolean {
  const expected = parseOctal(block, 148, 8);
  let unsigned = 8 * 0x20;
  let highBytes = 0;
  for (let index = 0; index < TAR_BLOCK_BYTES; index += 1) {
    if (index >= 148 && index < 156) continue;
    const byte = block[index] ?? 0;
    unsigned += byte;
    if (byte >= 0x80) highBytes += 1;
  }
  return expected === unsigned || expected === unsigned - 256 * highBytes;
}

function formatOf(block: Uint8Array): TarFormat {
  const magic = Buffer.from(block.buffer, block.byteOffset + 257, 8).toString("latin1");
  if (magic.startsWith("ustar\0")) {
    const trailer = Buffer.from(block.buffer, block.byteOffset + 508, 4).toString("latin1");
    return trailer === "tar\0" ? "star" : "ustar";
  }
  return magic === "ustar  \0" ? "gnu" : "v7";
}

function prefixOf(block: Uint8Array, format: TarFormat): string {
  if (format === "ustar") return text(block, 345, 155);
  if (format === "star") return text(block, 345, 131);
  if (format === "v7") return "";
  // The GNU format has no prefix, but Go before 1.8 wrote one over the time fields; such a block is
  // told by times that are no numbers. Source: Go archive/tar reader.go, issues 12594 and 21005.
  const areTimesSound =
    (block[345] === 0 || parseNumeric(block, 345, 12) !== undefined) &&
    (block[357] === 0 || parseNumeric(block, 357, 12) !== undefined);
  if (areTimesSound) return "";
  const prefix = text(block, 345, 155);
  return isAscii(prefix) ? prefix : "";
}

function isAscii(bytes: string): boolean {
  for (let index = 0; index < bytes.length; index += 1) {
    if (bytes.charCodeAt(index) >= 0x80) return false;
  }
  return true;
}
