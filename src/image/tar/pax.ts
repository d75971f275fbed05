/**
 * Pax extended header records. Values are bytes, not UTF-8: `SCHILY.xattr.` values are binary and
 * paths may be in any encoding. Source: POSIX pax, "pax Header Block"; Go archive/tar reader.go.
 */
import { XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX } from "../limits.ts";
import { tarError } from "./error.ts";
import type { RawHeader } from "./header.ts";
import { parseDecimal, parsePaxTime } from "./number.ts";

const SPACE = 0x20;
const NEWLINE = 0x0a;
const EQUALS = 0x3d;
/** Digits that the length of a record within TAR_META_BYTES_MAX can have, with leeway. */
const LENGTH_DIGITS_MAX = 20;

const XATTR_PREFIX = "SCHILY.xattr.";

export interface PaxRecords {
  /** Keys and values as byte strings; the last of equal keys counts. */
  readonly values: ReadonlyMap<string, string>;
  /** GNU sparse 0.0 repeats two keys in turn: offset, numbytes, offset … */
  readonly sparsePairs: readonly string[];
}

export function parsePaxRecords(bytes: Uint8Array, tarOffset: number): PaxRecords {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Map<string, string>();
  const sparsePairs: string[] = [];
  let position = 0;
  while (position < buffer.length) {
    const record = parseRecord(buffer, position, tarOffset);
    position = record.end;
    if (record.key === "GNU.sparse.offset" || record.key === "GNU.sparse.numbytes") {
      const expected = sparsePairs.length % 2 === 0 ? "GNU.sparse.offset" : "GNU.sparse.numbytes";
      if (record.key !== expected)
        throw tarError("pax sparse records are out of order", { offset: tarOffset });
      sparsePairs.push(record.value);
    } else {
      values.set(record.key, record.value);
    }
  }
  return { values, sparsePairs };
}

function parseRecord(
  buffer: Buffer,
  start: number,
  tarOffset: number,
): { key: string; value: string; end: number } {
  const malformed = tarError("malformed pax record", { offset: tarOffset });
  const space = buffer.subarray(start, start + LENGTH_DIGITS_MAX).indexOf(SPACE);
  if (space <= 0) throw malformed;
  const lengthText = buffer.toString("latin1", start, start + space);
  const length = parseDecimal(lengthText);
  if (length === undefined || length < 5) throw malformed;
  const end = start + length;
  const keyStart = start + space + 1;
  if (end > buffer.length || end <= keyStart || buffer[end - 1] !== NEWLINE) throw malformed;
  const equals = buffer.indexOf(EQUALS, keyStart);
  if (equals <= keyStart || equals >= end - 1) throw malformed;
  const key = buffer.toString("latin1", keyStart, equals);
  const value = buffer.toString("latin1", equals + 1, end - 1);
  const isText = key === "path" || key === "linkpath" || key === "uname" || key === "gname";
  if (key.includes("\0") || (isText && value.includes("\0"))) throw malformed;
  return { key, value, end };
}

/** An empty value leaves the header's own. Unknown keys mean nothing to us. */
export function mergePax(header: RawHeader, records: PaxRecords): void {
  for (const [key, value] of records.values) {
    if (value === "") continue;
    if (key === "path") header.path = value;
    else if (key === "linkpath") header.linkPath = value;
    else if (key === "uid") header.uid = paxNumber(header, key, value);
    else if (key === "gid") header.gid = paxNumber(header, key, value);
    else if (key === "size") header.size = paxNumber(header, key, value);
    else if (key === "mtime") mergeTime(header, value);
  }
}

function paxNumber(header: RawHeader, key: string, value: string): number {
  const number = parseDecimal(value);
  if (number !== undefined) return number;
  throw tarError(`pax ${key} is not a number in range`, header);
}

function mergeTime(header: RawHeader, value: string): void {
  const time = parsePaxTime(value);
  if (time === undefined) throw tarError("pax mtime is not a time", header);
  header.mtimeSec = time.sec;
  header.mtimeNsec = time.nsec;
}

/** `SCHILY.xattr.` records; containerd knows no other form (not `LIBARCHIVE.xattr.`). */
export function paxXattrs(header: RawHeader, records: PaxRecords): Map<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>();
  let listBytes = 0;
  for (const [key, value] of records.values) {
    if (!key.startsWith(XATTR_PREFIX)) continue;
    const name = key.slice(XATTR_PREFIX.length);
    if (name === "" || name.length > XATTR_NAME_BYTES_MAX) {
      throw tarError(`xattr name of ${name.length} bytes (1…${XATTR_NAME_BYTES_MAX})`, header);
    }
    if (value.length > XATTR_VALUE_BYTES_MAX) {
      const rule = `xattr value of ${value.length} bytes (at most ${XATTR_VALUE_BYTES_MAX})`;
      throw tarError(rule, header);
    }
    listBytes += name.length + 1;
    if (listBytes > XATTR_LIST_BYTES_MAX) {
      throw tarError(`xattr names of more than ${XATTR_LIST_BYTES_MAX} bytes`, header);
    }
    xattrs.set(name, Buffer.from(value, "latin1"));
  }
  return xattrs;
}
