/** The INFO section: what a layer map says of its layer, as JSON with keys in a fixed order. */
import { DaemonError } from "../../base/errors.ts";
import { LAYER_TAR_BYTES_MAX } from "../../block/index.ts";
import {
  parseDiffId,
  parseDigest,
  type Digest,
  type DiffId,
  type LayerCompression,
} from "../../oci/index.ts";
import { malformed } from "./format.ts";

export interface LayerMapInfo {
  readonly diffId: DiffId;
  readonly blobDigest: Digest;
  readonly blobBytes: number;
  readonly tarBytes: number;
  readonly mediaType: string;
  /** What the blob really is, whatever its media type says. */
  readonly compression: LayerCompression;
  /** Tar entries, whiteouts and repeated paths included. */
  readonly entries: number;
  readonly files: number;
  readonly directories: number;
  readonly symlinks: number;
  readonly hardLinks: number;
  readonly specials: number;
  readonly whiteouts: number;
  /** Sizes of all files, as a reader sees them. */
  readonly fileBytes: number;
}

const MEDIA_TYPE_CHARS_MAX = 255;
const COMPRESSIONS: readonly LayerCompression[] = ["gzip", "none", "zstd"];

export function encodeInfo(info: LayerMapInfo): Buffer {
  const ordered: LayerMapInfo = {
    diffId: info.diffId,
    blobDigest: info.blobDigest,
    blobBytes: info.blobBytes,
    tarBytes: info.tarBytes,
    mediaType: info.mediaType,
    compression: info.compression,
    entries: info.entries,
    files: info.files,
    directories: info.directories,
    symlinks: info.symlinks,
    hardLinks: info.hardLinks,
    specials: info.specials,
    whiteouts: info.whiteouts,
    fileBytes: info.fileBytes,
  };
  return Buffer.from(`${JSON.stringify(ordered)}\n`);
}

/** Throws `data-loss`. */
export function parseInfo(bytes: Buffer): LayerMapInfo {
  const record = parseRecord(bytes);
  const compression = COMPRESSIONS.find((name) => name === record["compression"]);
  const mediaType = record["mediaType"];
  if (compression === undefined) throw malformed("info.compression");
  if (typeof mediaType !== "string" || mediaType.length > MEDIA_TYPE_CHARS_MAX) {
    throw malformed("info.mediaType");
  }
  const number = (key: string, max = Number.MAX_SAFE_INTEGER): number => {
    const value = record[key];
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= max) {
      return value;
    }
    throw malformed(`info.${key}`);
  };
  return {
    ...parseIdentity(record),
    blobBytes: number("blobBytes"),
    tarBytes: number("tarBytes", LAYER_TAR_BYTES_MAX),
    mediaType,
    compression,
    entries: number("entries"),
    files: number("files"),
    directories: number("directories"),
    symlinks: number("symlinks"),
    hardLinks: number("hardLinks"),
    specials: number("specials"),
    whiteouts: number("whiteouts"),
    fileBytes: number("fileBytes"),
  };
}

function parseRecord(bytes: Buffer): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new DaemonError("data-loss", "malformed layer map: info is no JSON", { cause: error });
  }
  if (typeof value !== "object" || value === null) throw malformed("info");
  return value as Readonly<Record<string, unknown>>;
}

function parseIdentity(record: Readonly<Record<string, unknown>>): {
  diffId: DiffId;
  blobDigest: Digest;
} {
  const { diffId, blobDigest } = record;
  if (typeof diffId !== "string" || typeof blobDigest !== "string") {
    throw malformed("info digests");
  }
  try {
    return { diffId: parseDiffId(diffId), blobDigest: parseDigest(blobDigest) };
  } catch (error) {
    throw new DaemonError("data-loss", "malformed layer map: info digests", { cause: error });
  }
}
