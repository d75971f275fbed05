/**
 * The layer map file: everything needed to serve a layer without its blob. Byte by byte in
 * docs/formats/layer-map.md. All numbers little endian.
 */
import { createHash } from "node:crypto";
import { DaemonError } from "../../base/errors.ts";
import { IMAGE_BYTES_MAX } from "../../erofs/index.ts";

const LAYER_MAP_MAGIC = Buffer.from("FNLAYMAP", "latin1");
const LAYER_MAP_VERSION = 2;

const SECTION_TYPES = ["info", "meta", "blocks", "windows"] as const;
export type SectionType = (typeof SECTION_TYPES)[number];

const HEADER_BYTES = 64;
const SECTION_RECORD_BYTES = 64;
/** Header and section table; the first section starts here. */
export const LAYER_MAP_HEAD_BYTES = HEADER_BYTES + SECTION_TYPES.length * SECTION_RECORD_BYTES;
/** Sections begin at multiples of this, the gaps are zeros. */
const SECTION_ALIGNMENT_BYTES = 64;

/** What readers hold in memory; larger is refused before it is read. */
export const INFO_BYTES_MAX = 64 * 1024;
export const BLOCKS_BYTES_MAX = 512 * 1024 * 1024;
export const META_BYTES_MAX = IMAGE_BYTES_MAX;
const FILE_BYTES_MAX = 1024 ** 4;

export interface Section {
  readonly offset: number;
  readonly length: number;
  readonly sha256: Uint8Array;
}

export type Sections = Readonly<Record<SectionType, Section>>;

const SECTION_BYTES_MAX: Readonly<Record<SectionType, number>> = {
  info: INFO_BYTES_MAX,
  meta: META_BYTES_MAX,
  blocks: BLOCKS_BYTES_MAX,
  windows: FILE_BYTES_MAX,
};

export function encodeHead(sections: Sections, fileBytes: number): Buffer {
  const head = Buffer.alloc(LAYER_MAP_HEAD_BYTES);
  for (const [index, type] of SECTION_TYPES.entries()) {
    const base = HEADER_BYTES + index * SECTION_RECORD_BYTES;
    const section = sections[type];
    head.writeUInt32LE(index + 1, base);
    head.writeBigUInt64LE(BigInt(section.offset), base + 8);
    head.writeBigUInt64LE(BigInt(section.length), base + 16);
    head.set(section.sha256, base + 32);
  }
  LAYER_MAP_MAGIC.copy(head, 0);
  head.writeUInt32LE(LAYER_MAP_VERSION, 8);
  head.writeUInt32LE(SECTION_TYPES.length, 12);
  head.writeBigUInt64LE(BigInt(fileBytes), 16);
  head.set(createHash("sha256").update(head.subarray(HEADER_BYTES)).digest(), 32);
  return head;
}

/** Throws `data-loss` unless the head is whole, of this version and of a file of `fileBytes`. */
export function parseHead(head: Buffer, fileBytes: number): Sections {
  if (head.length < LAYER_MAP_HEAD_BYTES || !head.subarray(0, 8).equals(LAYER_MAP_MAGIC)) {
    throw malformed("not a layer map");
  }
  const version = head.readUInt32LE(8);
  if (version !== LAYER_MAP_VERSION) throw malformed(`version ${version}`);
  if (head.readUInt32LE(12) !== SECTION_TYPES.length) throw malformed("section count");
  if (head.readBigUInt64LE(16) !== BigInt(fileBytes)) {
    throw malformed(`file of ${fileBytes} bytes, not ${head.readBigUInt64LE(16)}`);
  }
  if (!isZero(head, 24, 32)) throw malformed("reserved bytes");
  const table = head.subarray(HEADER_BYTES, LAYER_MAP_HEAD_BYTES);
  if (!createHash("sha256").update(table).digest().equals(head.subarray(32, HEADER_BYTES))) {
    throw malformed("section table digest");
  }
  const sections = {
    info: parseSection(table, 0, fileBytes),
    meta: parseSection(table, 1, fileBytes),
    blocks: parseSection(table, 2, fileBytes),
    windows: parseSection(table, 3, fileBytes),
  };
  checkDisjoint(sections);
  return sections;
}

function parseSection(table: Buffer, index: number, fileBytes: number): Section {
  const base = index * SECTION_RECORD_BYTES;
  const type = SECTION_TYPES[index] ?? "info";
  const offset = table.readBigUInt64LE(base + 8);
  const length = table.readBigUInt64LE(base + 16);
  const isSound =
    table.readUInt32LE(base) === index + 1 &&
    isZero(table, base + 4, base + 8) &&
    isZero(table, base + 24, base + 32) &&
    offset >= BigInt(LAYER_MAP_HEAD_BYTES) &&
    offset % BigInt(SECTION_ALIGNMENT_BYTES) === 0n &&
    length <= BigInt(SECTION_BYTES_MAX[type]) &&
    offset + length <= BigInt(fileBytes);
  if (!isSound) throw malformed(`section ${type}`);
  return {
    offset: Number(offset),
    length: Number(length),
    sha256: Buffer.from(table.subarray(base + 32, base + 64)),
  };
}

function checkDisjoint(sections: Sections): void {
  const ordered = SECTION_TYPES.map((type) => sections[type])
    .filter((section) => section.length > 0)
    .sort((left, right) => left.offset - right.offset);
  let end = LAYER_MAP_HEAD_BYTES;
  for (const section of ordered) {
    if (section.offset < end) throw malformed("sections overlap");
    end = section.offset + section.length;
  }
}

function isZero(bytes: Buffer, start: number, end: number): boolean {
  return bytes.subarray(start, end).every((byte) => byte === 0);
}

export function malformed(what: string): DaemonError {
  return new DaemonError("data-loss", `malformed layer map: ${what}`);
}

/** Bytes up to the next section boundary. */
export function sectionPadding(offset: number): number {
  return (SECTION_ALIGNMENT_BYTES - (offset % SECTION_ALIGNMENT_BYTES)) % SECTION_ALIGNMENT_BYTES;
}
