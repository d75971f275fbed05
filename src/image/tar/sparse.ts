/**
 * GNU sparse maps in all four forms: old (type `S`), pax 0.0, 0.1 and 1.0.
 * Source: GNU tar manual, "Storing Sparse Files"; Go archive/tar reader.go.
 */
import { SPARSE_SEGMENTS_MAX } from "../limits.ts";
import type { SparseSegment } from "./entry.ts";
import { tarError } from "./error.ts";
import { TAR_BLOCK_BYTES, type RawHeader } from "./header.ts";
import { parseDecimal, parseNumeric } from "./number.ts";
import type { PaxRecords } from "./pax.ts";

const NEWLINE = 0x0a;
/** The header block holds four pairs at 386, an extension block 21 at 0. */
const HEADER_PAIRS = { offset: 386, count: 4, extendedFlag: 482 } as const;
const EXTENSION_PAIRS = { offset: 0, count: 21, extendedFlag: 504 } as const;
const REAL_SIZE_OFFSET = 483;
const NUMBER_BYTES = 12;

export type PaxSparseForm = "none" | "in-header" | "in-data";

/** Which form the records declare; a version that nobody knows means an ordinary file. */
export function paxSparseForm(records: PaxRecords): PaxSparseForm {
  const major = records.values.get("GNU.sparse.major") ?? "";
  const minor = records.values.get("GNU.sparse.minor") ?? "";
  if (major === "0" && (minor === "0" || minor === "1")) return "in-header";
  if (major === "1" && minor === "0") return "in-data";
  if (major !== "" || minor !== "") return "none";
  const map = records.values.get("GNU.sparse.map") ?? "";
  return map !== "" || records.sparsePairs.length > 0 ? "in-header" : "none";
}

/** Name and size as a reader sees them replace those of the stored member. */
export function mergePaxSparse(header: RawHeader, records: PaxRecords): void {
  const name = records.values.get("GNU.sparse.name") ?? "";
  if (name !== "") {
    if (name.includes("\0")) throw tarError("sparse name has a NUL", header);
    header.path = name;
  }
  const size =
    records.values.get("GNU.sparse.size") ?? records.values.get("GNU.sparse.realsize") ?? "";
  if (size === "") return;
  const value = parseDecimal(size);
  if (value === undefined || value < 0) throw tarError("sparse size is not a number", header);
  header.size = value;
}

/** Forms 0.0 and 0.1. */
export function paxSparseMap(header: RawHeader, records: PaxRecords): SparseSegment[] {
  const map = records.values.get("GNU.sparse.map") ?? "";
  const numbers = records.sparsePairs.length > 0 ? records.sparsePairs : splitMap(map);
  const count = parseDecimal(records.values.get("GNU.sparse.numblocks") ?? "");
  if (count === undefined || numbers.length !== count * 2) {
    throw tarError("sparse map and its length differ", header);
  }
  return toSegments(header, numbers.map(parseDecimal));
}

function splitMap(map: string): string[] {
  return map === "" ? [] : map.split(",");
}

function toSegments(header: RawHeader, numbers: readonly (number | undefined)[]): SparseSegment[] {
  if (numbers.length > 2 * SPARSE_SEGMENTS_MAX) {
    throw tarError(`sparse map of more than ${SPARSE_SEGMENTS_MAX} segments`, header);
  }
  const segments: SparseSegment[] = [];
  for (let index = 0; index < numbers.length; index += 2) {
    const fileOffset = numbers[index];
    const length = numbers[index + 1];
    if (fileOffset === undefined || length === undefined) {
      throw tarError("sparse map has a malformed number", header);
    }
    segments.push({ fileOffset, length });
  }
  return segments;
}

/** Form 1.0: decimal lines at the start of the data, in whole blocks. */
export class SparseDataMap {
  readonly #numbers: (number | undefined)[] = [];
  #line = "";
  readonly #header: RawHeader;

  constructor(header: RawHeader) {
    this.#header = header;
  }

  /** Takes the next block of the data; true when the map is whole. */
  push(block: Uint8Array): boolean {
    for (const byte of block) {
      if (byte !== NEWLINE) {
        this.#line += String.fromCharCode(byte);
        if (this.#line.length > 20) throw tarError("malformed sparse map", this.#header);
        continue;
      }
      this.#numbers.push(parseDecimal(this.#line));
      this.#line = "";
      if (this.#isWhole()) return true;
    }
    return false;
  }

  segments(): SparseSegment[] {
    return toSegments(this.#header, this.#numbers.slice(1));
  }

  #isWhole(): boolean {
    const count = this.#numbers[0];
    if (count === undefined || count < 0 || count > SPARSE_SEGMENTS_MAX) {
      throw tarError("sparse map has a malformed or too large length", this.#header);
    }
    return this.#numbers.length === 1 + 2 * count;
  }
}

/** The old form: pairs in the header block, then extension blocks while a flag says so. */
export class OldSparseMap {
  readonly #numbers: (number | undefined)[] = [];
  readonly #header: RawHeader;
  isExtended = false;

  constructor(header: RawHeader, block: Uint8Array) {
    this.#header = header;
    if (header.format !== "gnu") {
      throw tarError("sparse member in a format other than GNU", header, "unimplemented");
    }
    const realSize = parseNumeric(block, REAL_SIZE_OFFSET, NUMBER_BYTES);
    if (realSize === undefined || realSize < 0) {
      throw tarError("sparse size is not a number", header);
    }
    header.size = realSize;
    this.#read(block, HEADER_PAIRS);
  }

  pushExtension(block: Uint8Array): void {
    this.#read(block, EXTENSION_PAIRS);
  }

  segments(): SparseSegment[] {
    return toSegments(this.#header, this.#numbers);
  }

  #read(block: Uint8Array, form: typeof HEADER_PAIRS | typeof EXTENSION_PAIRS): void {
    for (let index = 0; index < form.count; index += 1) {
      const base = form.offset + index * 2 * NUMBER_BYTES;
      if (block[base] === 0) break;
      this.#numbers.push(parseNumeric(block, base, NUMBER_BYTES));
      this.#numbers.push(parseNumeric(block, base + NUMBER_BYTES, NUMBER_BYTES));
    }
    if (this.#numbers.length > 2 * SPARSE_SEGMENTS_MAX) {
      throw tarError(`sparse map of more than ${SPARSE_SEGMENTS_MAX} segments`, this.#header);
    }
    this.isExtended = block[form.extendedFlag] !== 0;
  }
}

/**
 * Segments in order, inside the file, without overlap, as long together as the stored data.
 * Empty ones (GNU tar ends a map with one) are dropped.
 */
export function checkSparse(
  header: RawHeader,
  segments: readonly SparseSegment[],
  storedBytes: number,
): SparseSegment[] {
  let end = 0;
  let total = 0;
  for (const { fileOffset, length } of segments) {
    if (fileOffset < end || length < 0 || fileOffset + length > header.size) {
      throw tarError("sparse map is out of order or beyond the file", header);
    }
    end = fileOffset + length;
    total += length;
  }
  if (total !== storedBytes) {
    throw tarError(`sparse map of ${total} bytes over ${storedBytes} stored ones`, header);
  }
  return segments.filter((segment) => segment.length > 0);
}

export function isBlockAligned(offset: number): boolean {
  return offset % TAR_BLOCK_BYTES === 0;
}
