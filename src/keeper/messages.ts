/** Requests to the keeper and answers of the image service, checked. */
import { isAbsolute } from "node:path";
import { DaemonError } from "../base/errors.ts";
import type { ByteRange } from "../base/range-set.ts";

/** Ranges in one message; a 100 GiB layer in 1 MiB blocks has at most half as many. */
export const RANGES_MAX = 65_536;
/** Layers of one image; overlayfs itself stops at 500. */
export const TREE_LAYERS_MAX = 512;
const LAYER_PATTERN = /^[0-9a-f]{64}$/;
const PATH_BYTES_MAX = 1000;

export interface ServeLayerRequest {
  readonly layer: string;
  /** Empty: no mount of its own. */
  readonly mountpoint: string;
  readonly size: number;
  readonly tarBytes: number;
  readonly decodedPath: string;
  readonly present: readonly ByteRange[];
  readonly readWaitMs: number | undefined;
}

export interface ServeTreeRequest {
  readonly tree: string;
  readonly mountpoint: string;
  readonly metadataPath: string;
  readonly layers: readonly string[];
  readonly context: string | undefined;
}

export interface RangesRequest {
  readonly layer: string;
  readonly ranges: readonly ByteRange[];
}

export interface FetchAnswer {
  readonly present: readonly ByteRange[];
  /** Exactly the bytes asked for; empty when `present` says where they are. */
  readonly data: Uint8Array;
}

function invalid(what: string): DaemonError {
  return new DaemonError("invalid-argument", `control message: bad ${what}`);
}

function object(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null) throw invalid("message");
  return value as Record<string, unknown>;
}

function list(value: unknown, what: string, max: number): readonly unknown[] {
  if (!Array.isArray(value) || value.length > max) throw invalid(what);
  return value as readonly unknown[];
}

function bytes(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw invalid(what);
  return value;
}

function identity(value: unknown): string {
  if (typeof value !== "string" || !LAYER_PATTERN.test(value)) throw invalid("layer or tree id");
  return value;
}

function path(value: unknown, what: string): string {
  if (typeof value !== "string" || !isAbsolute(value) || value.includes("\0")) throw invalid(what);
  if (Buffer.byteLength(value) > PATH_BYTES_MAX) throw invalid(what);
  return value;
}

function ranges(value: unknown): ByteRange[] {
  return list(value, "ranges", RANGES_MAX).map((item) => {
    const range = object(item);
    const start = bytes(range["start"], "range");
    const end = bytes(range["end"], "range");
    if (end < start) throw invalid("range");
    return { start, end };
  });
}

export function parseServeLayer(value: unknown): ServeLayerRequest {
  const message = object(value);
  const size = bytes(message["size"], "size");
  const tarBytes = bytes(message["tarBytes"], "tar_bytes");
  if (tarBytes > size) throw invalid("tar_bytes");
  const present = ranges(message["present"]);
  if (present.some((range) => range.end > tarBytes)) throw invalid("present range");
  const readWaitMs = bytes(message["readWaitMs"], "read_wait_ms");
  return {
    layer: identity(message["layer"]),
    mountpoint: message["mountpoint"] === "" ? "" : path(message["mountpoint"], "mountpoint"),
    size,
    tarBytes,
    decodedPath: path(message["decodedPath"], "decoded_path"),
    present,
    readWaitMs: readWaitMs === 0 ? undefined : readWaitMs,
  };
}

export function parseServeTree(value: unknown): ServeTreeRequest {
  const message = object(value);
  const context = message["context"];
  return {
    tree: identity(message["tree"]),
    mountpoint: path(message["mountpoint"], "mountpoint"),
    metadataPath: path(message["metadataPath"], "metadata_path"),
    layers: list(message["layers"], "layers", TREE_LAYERS_MAX).map(identity),
    context: typeof context === "string" && context !== "" ? context : undefined,
  };
}

export function parseLayer(value: unknown): string {
  return identity(object(value)["layer"]);
}

export function parseTree(value: unknown): string {
  return identity(object(value)["tree"]);
}

export function parseRanges(value: unknown): RangesRequest {
  const message = object(value);
  return { layer: identity(message["layer"]), ranges: ranges(message["ranges"]) };
}

export function parseForce(value: unknown): boolean {
  return object(value)["force"] === true;
}

/** Throws when `data` is neither empty nor as long as what was asked for. */
export function parseFetchAnswer(value: unknown, asked: ByteRange): FetchAnswer {
  const message = object(value);
  const data = message["data"];
  if (!(data instanceof Uint8Array)) throw invalid("data");
  if (data.length > 0 && data.length !== asked.end - asked.start) throw invalid("data length");
  return { present: ranges(message["present"]), data };
}
