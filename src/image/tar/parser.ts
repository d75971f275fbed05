/**
 * A push-based tar parser: bytes in, in pieces of any size; members out, in archive order. It reads
 * headers only and keeps no file data. What it accepts is what Go's archive/tar accepts (that is
 * what containerd unpacks with), plus old GNU sparse and contiguous files.
 *
 * Global pax headers are checked and then ignored, as Go and so containerd, docker and skopeo do:
 * obeying them would show another tree than every scanner and every unpacked container sees.
 */
import { errorMessage } from "../../base/errors.ts";
import { CHUNK_INDEX_BYTES, planChunks } from "../../erofs/index.ts";
import {
  LAYER_ENTRIES_MAX,
  LAYER_METADATA_BYTES_MAX,
  LAYER_TAR_BYTES_DEFAULT_MAX,
  TAR_META_BYTES_MAX,
} from "../limits.ts";
import type { SparseSegment, TarEntry, TarEntryType } from "./entry.ts";
import { tarError } from "./error.ts";
import {
  isZeroBlock,
  paddingAfter,
  parseHeader,
  TAR_BLOCK_BYTES,
  type RawHeader,
} from "./header.ts";
import { mergePax, parsePaxRecords, paxXattrs, type PaxRecords } from "./pax.ts";
import {
  checkSparse,
  mergePaxSparse,
  OldSparseMap,
  paxSparseForm,
  paxSparseMap,
  SparseDataMap,
} from "./sparse.ts";

const NO_RECORDS: PaxRecords = { values: new Map(), sparsePairs: [] };
const NO_XATTRS: ReadonlyMap<string, Uint8Array> = new Map();

const ENTRY_TYPES: Readonly<Record<string, TarEntryType>> = {
  "\0": "file",
  "0": "file",
  "1": "hard-link",
  "2": "symlink",
  "3": "char-device",
  "4": "block-device",
  "5": "directory",
  "6": "fifo",
  "7": "file",
  S: "file",
};

/** What the bytes at hand mean. */
type State =
  | { readonly kind: "header" }
  | { readonly kind: "meta"; readonly header: RawHeader; readonly length: number }
  | {
      readonly kind: "old-sparse";
      readonly header: RawHeader;
      readonly map: OldSparseMap;
      storedBytes: number;
    }
  | {
      readonly kind: "sparse-map";
      readonly header: RawHeader;
      readonly map: SparseDataMap;
      storedBytes: number;
    }
  | { readonly kind: "end" };

export interface TarParserLimits {
  readonly entriesMax: number;
  readonly metadataBytesMax: number;
  readonly tarBytesMax: number;
}

export class TarParser {
  readonly #onEntry: (entry: TarEntry) => void;
  readonly #limits: TarParserLimits;
  #state: State = { kind: "header" };
  /** Of the next byte to be pushed. */
  #offset = 0;
  /** Stored bytes of a member still to pass over, then its padding. */
  #dataLeft = 0;
  #paddingLeft = 0;
  #dataOwner: RawHeader | undefined;
  /** Bytes of a block or extension header that came in part. */
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #zeroBlocks = 0;
  #pax: PaxRecords | undefined;
  #longPath = "";
  #longLink = "";
  #entries = 0;
  #metadataBytes = 0;

  constructor(onEntry: (entry: TarEntry) => void, limits: Partial<TarParserLimits> = {}) {
    this.#onEntry = onEntry;
    this.#limits = {
      entriesMax: limits.entriesMax ?? LAYER_ENTRIES_MAX,
      metadataBytesMax: limits.metadataBytesMax ?? LAYER_METADATA_BYTES_MAX,
      tarBytesMax: limits.tarBytesMax ?? LAYER_TAR_BYTES_DEFAULT_MAX,
    };
  }

  get entryCount(): number {
    return this.#entries;
  }

  /** Throws at the first malformed byte; the parser is then of no further use. */
  push(chunk: Uint8Array): void {
    let position = 0;
    while (position < chunk.length) {
      position += this.#skip(chunk.length - position);
      if (position >= chunk.length) break;
      if (this.#state.kind === "end") {
        this.#offset += chunk.length - position;
        return;
      }
      position += this.#collect(chunk, position);
    }
  }

  /** To be called after the last byte. The end marker may be missing, file data may not. */
  finish(): void {
    if (this.#dataLeft > 0) {
      throw tarError("archive ends inside the data", this.#dataOwner ?? { offset: this.#offset });
    }
    const state = this.#state;
    if (state.kind === "end") return;
    if (state.kind !== "header" || this.#partialBytes > 0) {
      throw tarError("archive ends inside a header", { offset: this.#offset });
    }
  }

  #skip(available: number): number {
    const data = Math.min(available, this.#dataLeft);
    const padding = Math.min(available - data, this.#paddingLeft);
    this.#dataLeft -= data;
    this.#paddingLeft -= padding;
    this.#offset += data + padding;
    return data + padding;
  }

  /** Gathers what the state waits for and acts when it is whole. Returns the bytes taken. */
  #collect(chunk: Uint8Array, position: number): number {
    const wanted = this.#state.kind === "meta" ? this.#state.length : TAR_BLOCK_BYTES;
    const taken = Math.min(wanted - this.#partialBytes, chunk.length - position);
    const piece = Buffer.from(chunk.buffer, chunk.byteOffset + position, taken);
    if (taken === wanted) {
      this.#offset += taken;
      this.#onWhole(piece);
      return taken;
    }
    // The caller may reuse its buffer.
    this.#partial.push(Buffer.from(piece));
    this.#partialBytes += taken;
    this.#offset += taken;
    if (this.#partialBytes === wanted) {
      const whole = Buffer.concat(this.#partial);
      this.#partial = [];
      this.#partialBytes = 0;
      this.#onWhole(whole);
    }
    return taken;
  }

  #onWhole(bytes: Buffer): void {
    const state = this.#state;
    switch (state.kind) {
      case "header":
        this.#onHeader(bytes);
        return;
      case "meta":
        this.#state = { kind: "header" };
        this.#paddingLeft = paddingAfter(state.length);
        this.#onMeta(state.header, bytes);
        return;
      case "old-sparse":
        state.map.pushExtension(bytes);
        if (!state.map.isExtended) this.#emitOldSparse(state.header, state.map, state.storedBytes);
        return;
      case "sparse-map":
        state.storedBytes -= TAR_BLOCK_BYTES;
        if (state.map.push(bytes)) {
          this.#emitSparse(state.header, state.map.segments(), state.storedBytes);
        } else if (state.storedBytes < TAR_BLOCK_BYTES) {
          throw tarError("sparse map is longer than the data", state.header);
        }
        return;
      case "end":
        return;
    }
  }

  #onHeader(block: Buffer): void {
    const offset = this.#offset - TAR_BLOCK_BYTES;
    if (isZeroBlock(block)) {
      this.#zeroBlocks += 1;
      if (this.#zeroBlocks === 2) this.#state = { kind: "end" };
      return;
    }
    if (this.#zeroBlocks > 0) throw tarError("a zero block and then a header", { offset });
    const header = parseHeader(block, offset);
    switch (header.typeflag) {
      case "x":
      case "g":
      case "L":
      case "K":
        this.#startMeta(header);
        return;
      default:
        this.#onMember(header, block);
    }
  }

  /** An extension header's own size comes from its own block, never from a pending pax header. */
  #startMeta(header: RawHeader): void {
    if (header.size < 0 || header.size > TAR_META_BYTES_MAX) {
      const rule = `extension header of ${header.size} bytes (at most ${TAR_META_BYTES_MAX})`;
      throw tarError(rule, header);
    }
    this.#countMetadata(header, header.size);
    if (header.size === 0) this.#onMeta(header, Buffer.alloc(0));
    else this.#state = { kind: "meta", header, length: header.size };
  }

  #onMeta(header: RawHeader, bytes: Buffer): void {
    if (header.typeflag === "x") this.#pax = parsePaxRecords(bytes, header.offset);
    else if (header.typeflag === "L") this.#longPath = cString(bytes);
    else if (header.typeflag === "K") this.#longLink = cString(bytes);
    else {
      parsePaxRecords(bytes, header.offset);
      // Go reports a global header as a member of its own, so what was pending ends here.
      this.#resetPending();
    }
  }

  #onMember(header: RawHeader, block: Buffer): void {
    const records = this.#pax ?? NO_RECORDS;
    mergePax(header, records);
    if (this.#longPath !== "") header.path = this.#longPath;
    if (this.#longLink !== "") header.linkPath = this.#longLink;
    this.#entries += 1;
    if (this.#entries > this.#limits.entriesMax) {
      throw tarError(`more than ${this.#limits.entriesMax} entries`, header);
    }
    const type = entryType(header);
    if (header.size < 0) throw tarError("negative size", header);
    const storedBytes = type === "file" ? header.size : 0;
    if (header.typeflag === "S") {
      const map = new OldSparseMap(header, block);
      if (map.isExtended) this.#state = { kind: "old-sparse", header, map, storedBytes };
      else this.#emitOldSparse(header, map, storedBytes);
      return;
    }
    const form = paxSparseForm(records);
    if (form === "none") {
      this.#emit(header, { storedBytes, size: storedBytes, sparse: undefined });
      return;
    }
    if (type !== "file") throw tarError("sparse map on a member without data", header);
    mergePaxSparse(header, records);
    if (form === "in-header") {
      this.#emitSparse(header, paxSparseMap(header, records), storedBytes);
    } else {
      if (storedBytes < TAR_BLOCK_BYTES) throw tarError("sparse map is missing", header);
      this.#state = { kind: "sparse-map", header, map: new SparseDataMap(header), storedBytes };
    }
  }

  #emitOldSparse(header: RawHeader, map: OldSparseMap, storedBytes: number): void {
    this.#emitSparse(header, map.segments(), storedBytes);
  }

  #emitSparse(header: RawHeader, segments: readonly SparseSegment[], storedBytes: number): void {
    const sparse = checkSparse(header, segments, storedBytes);
    this.#countMetadata(header, segments.length * 16 + chunkBytes(header, sparse));
    this.#emit(header, { storedBytes, size: header.size, sparse });
  }

  #emit(
    header: RawHeader,
    data: {
      readonly storedBytes: number;
      readonly size: number;
      readonly sparse: readonly SparseSegment[] | undefined;
    },
  ): void {
    const records = this.#pax;
    // Known before the first byte of it is read.
    if (this.#offset + data.storedBytes > this.#limits.tarBytesMax) {
      throw tarError(`more than ${this.#limits.tarBytesMax} bytes of tar`, header);
    }
    this.#state = { kind: "header" };
    this.#dataLeft = data.storedBytes;
    this.#paddingLeft = paddingAfter(data.storedBytes);
    this.#dataOwner = header;
    this.#resetPending();
    this.#countMetadata(header, header.path.length + header.linkPath.length);
    this.#onEntry({
      type: entryType(header),
      path: header.path,
      linkPath: header.linkPath,
      mode: header.mode & 0o7777,
      uid: header.uid,
      gid: header.gid,
      mtimeSec: header.mtimeSec,
      mtimeNsec: header.mtimeNsec,
      rdevMajor: header.rdevMajor,
      rdevMinor: header.rdevMinor,
      size: data.size,
      dataOffset: this.#offset,
      sparse: data.sparse,
      xattrs: records === undefined ? NO_XATTRS : paxXattrs(header, records),
      headerOffset: header.offset,
    });
  }

  #resetPending(): void {
    this.#pax = undefined;
    this.#longPath = "";
    this.#longLink = "";
  }

  #countMetadata(header: RawHeader, bytes: number): void {
    this.#metadataBytes += bytes;
    if (this.#metadataBytes > this.#limits.metadataBytesMax) {
      throw tarError(`more than ${this.#limits.metadataBytesMax} bytes of metadata`, header);
    }
  }
}

/** What the chunks of a sparse file take of the metadata: far more than its map may take here. */
function chunkBytes(header: RawHeader, segments: readonly SparseSegment[]): number {
  const joined: SparseSegment[] = [];
  for (const segment of segments) {
    const last = joined.at(-1);
    // Neighbours are one piece in the metadata too.
    if (last === undefined || last.fileOffset + last.length !== segment.fileOffset) {
      joined.push(segment);
    } else {
      joined[joined.length - 1] = { ...last, length: last.length + segment.length };
    }
  }
  try {
    return planChunks(header.size, joined).count * CHUNK_INDEX_BYTES;
  } catch (error) {
    throw tarError(errorMessage(error), header);
  }
}

/** Old archives mark a directory by a trailing slash. */
function entryType(header: RawHeader): TarEntryType {
  if (header.typeflag === "\0" && header.path.endsWith("/")) return "directory";
  const type = Object.hasOwn(ENTRY_TYPES, header.typeflag)
    ? ENTRY_TYPES[header.typeflag]
    : undefined;
  if (type !== undefined) return type;
  const code = header.typeflag.charCodeAt(0);
  throw tarError(`unknown entry type 0x${code.toString(16)}`, header, "unimplemented");
}

function cString(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("latin1", 0, end < 0 ? bytes.length : end);
}
