/** Requests of the exchange: where they go, what is in them, and what a refusal says. */
import { DaemonError, RETRYABLE, isErrorCode } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import { FETCH_PRIORITY } from "../../block/index.ts";
import type { FetchPriority } from "../../block/index.ts";
import { isDomain, isRepository, isTag, tryParseDigest } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import {
  BLOCK_BYTES_MAX,
  ORDER_POSITION_MAX,
  PATH_MEMBERS_MAX,
  REQUEST_BLOCKS_MAX,
  TARGET_CHARS_MAX,
} from "./limits.ts";
import { versionsText } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";
import type { TreeEpoch } from "./position.ts";
import { DOCUMENT_REACH } from "./providers.ts";
import type { DocumentQuestion } from "./providers.ts";

/** Of every resource of members; the version follows: `/faasnet/1/blocks`. */
export const EXCHANGE_PREFIX = "/faasnet/";
export const MEDIA_TYPE = {
  request: "application/vnd.faasnet.request.v1+json",
  frames: "application/vnd.faasnet.frames.v1",
  view: "application/vnd.faasnet.view.v1",
} as const;

/** A block's range of the blob. */
export interface BlockRange {
  /** Index in the layer's block table. */
  readonly index: number;
  /** Blob bytes. */
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** `POST /faasnet/1/blocks`: blocks of one layer, answered in this order. */
export interface BlocksRequest {
  /** Manifest digest. */
  readonly image: Digest;
  readonly epoch: TreeEpoch;
  /** Ids of the members that the request has passed, its sender last. */
  readonly path: readonly string[];
  /** Diff ID, hex. */
  readonly layer: string;
  readonly blob: Digest;
  readonly priority: FetchPriority;
  /** The tree's root is gone: what the receiver has not got it gets itself. */
  readonly isRootLost?: boolean;
  /** In ascending order of index. */
  readonly blocks: readonly BlockRange[];
}

export type ExchangeTarget =
  | { readonly kind: "blocks" }
  | { readonly kind: "view" }
  | { readonly kind: "probe" }
  | {
      readonly kind: "map";
      readonly diffId: string;
      readonly image: string;
      readonly path: string[];
    }
  | { readonly kind: "order"; readonly image: string; readonly from: number }
  | { readonly kind: "document"; readonly question: DocumentQuestion };

const KINDS: ReadonlySet<string> = new Set([
  "blocks",
  "view",
  "probe",
  "maps",
  "order",
  "document",
]);
const HEX_DIGEST = /^[0-9a-f]{64}$/;
const PRIORITIES = new Set<number>(Object.values(FETCH_PRIORITY));
const MEMBER_ID_CHARS_MAX = 253;

export function encodeBlocksRequest(request: BlocksRequest): Buffer {
  const { blocks, ...rest } = request;
  return Buffer.from(
    JSON.stringify({ ...rest, blocks: blocks.map(({ index, start, end }) => [index, start, end]) }),
  );
}

/** `invalid-argument` for anything else than a request; unknown fields are passed over. */
export function parseBlocksRequest(bytes: Uint8Array): BlocksRequest {
  const fields = asRecord(parseJson(bytes), "the request");
  const { layer, priority, blocks } = fields;
  if (typeof layer !== "string" || !HEX_DIGEST.test(layer)) throw invalid("layer");
  if (typeof priority !== "number" || !PRIORITIES.has(priority)) throw invalid("priority");
  if (!Array.isArray(blocks) || blocks.length === 0 || blocks.length > REQUEST_BLOCKS_MAX) {
    throw invalid("blocks");
  }
  let previous = -1;
  const ranges = blocks.map((each: unknown) => {
    const range = parseRange(each);
    if (range.index <= previous) throw invalid("order of the blocks");
    previous = range.index;
    return range;
  });
  return {
    image: parseDigestField(fields["image"], "image"),
    epoch: parseEpoch(fields["epoch"]),
    path: parsePath(fields["path"]),
    layer,
    blob: parseDigestField(fields["blob"], "blob"),
    priority: priority as FetchPriority,
    ...(fields["isRootLost"] === true ? { isRootLost: true } : {}),
    blocks: ranges,
  };
}

function parseRange(value: unknown): BlockRange {
  if (!Array.isArray(value) || value.length !== 3) throw invalid("a block");
  const [index, start, end] = value.map((each: unknown) => {
    if (typeof each !== "number" || !Number.isSafeInteger(each) || each < 0) {
      throw invalid("a block");
    }
    return each;
  });
  if (index === undefined || start === undefined || end === undefined) throw invalid("a block");
  if (index > 0xffff_ffff || end <= start || end - start > BLOCK_BYTES_MAX) {
    throw invalid("a block's range");
  }
  return { index, start, end };
}

function parseEpoch(value: unknown): TreeEpoch {
  const { counter, manager } = asRecord(value, "epoch");
  if (typeof counter !== "number" || !Number.isSafeInteger(counter) || counter < 0) {
    throw invalid("epoch");
  }
  if (!isMemberId(manager)) throw invalid("epoch");
  return { counter, manager };
}

function parsePath(value: unknown): readonly string[] {
  if (!Array.isArray(value) || value.length === 0) throw invalid("path");
  if (value.length > PATH_MEMBERS_MAX) throw tooDeep();
  if (!value.every(isMemberId)) throw invalid("path");
  return value;
}

function tooDeep(): DaemonError {
  const what = `the request has passed more than ${PATH_MEMBERS_MAX} members`;
  return new DaemonError("failed-precondition", what);
}

function isMemberId(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= MEMBER_ID_CHARS_MAX;
}

function parseDigestField(value: unknown, name: string): Digest {
  const digest = typeof value === "string" ? tryParseDigest(value) : undefined;
  if (digest === undefined) throw invalid(name);
  return digest;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(
      Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8"),
    ) as unknown;
  } catch (error) {
    throw new DaemonError("invalid-argument", "the request is not JSON", { cause: error });
  }
}

export function asRecord(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw invalid(what);
  return value as Record<string, unknown>;
}

function invalid(what: string): DaemonError {
  return new DaemonError("invalid-argument", `malformed request: ${what}`);
}

/** The path and query of a resource in one version. */
export function targetOf(version: number, resource: string): string {
  return `${EXCHANGE_PREFIX}${version}/${resource}`;
}

export function mapResource(diffId: string, image: string, path: readonly string[]): string {
  const query = new URLSearchParams({ image });
  for (const id of path) query.append("path", id);
  return `maps/${diffId}?${query.toString()}`;
}

export function orderResource(image: string, from: number): string {
  return `order/${image}?from=${from}`;
}

export function documentResource(question: DocumentQuestion): string {
  const { kind, registry, name, reference, reach } = question;
  const query = new URLSearchParams({ kind, registry, name, reference, reach });
  return `document?${query.toString()}`;
}

/**
 * A path below EXCHANGE_PREFIX, with its query. `not-found` or `invalid-argument`,
 * `failed-precondition` for a version that is not spoken.
 */
export function parseTarget(
  method: string,
  target: string,
  versions: WireVersions,
): ExchangeTarget {
  if (target.length > TARGET_CHARS_MAX) throw invalid("target");
  const cut = target.indexOf("?");
  const path = cut < 0 ? target : target.slice(0, cut);
  const query = new URLSearchParams(cut < 0 ? "" : target.slice(cut + 1));
  const parts = path.slice(EXCHANGE_PREFIX.length).split("/");
  const [version = "", kind = "", name = "", ...rest] = parts;
  checkVersion(version, versions);
  const verb = kind === "blocks" || kind === "view" ? "POST" : "GET";
  const hasName = kind === "maps" || kind === "order";
  if (rest.length > 0 || (name !== "") !== hasName) throw unknownTarget();
  if (!KINDS.has(kind)) throw unknownTarget();
  if (method !== verb) throw new DaemonError("unimplemented", `${kind} takes ${verb}`);
  if (kind === "document") return { kind, question: parseDocumentQuestion(query) };
  if (kind === "maps") return parseMapTarget(name, query);
  if (kind === "order") return parseOrderTarget(name, query);
  return { kind: kind === "blocks" ? "blocks" : kind === "view" ? "view" : "probe" };
}

/** Nothing of the request is read before: another version may mean something else by it. */
function checkVersion(text: string, versions: WireVersions): void {
  if (!/^[1-9]\d{0,2}$/.test(text)) throw unknownTarget();
  const version = Number(text);
  if (version >= versions.lowest && version <= versions.highest) return;
  const what = `exchange version ${version}; this node speaks ${versionsText(versions)}`;
  throw new DaemonError("failed-precondition", what);
}

function parseMapTarget(diffId: string, query: URLSearchParams): ExchangeTarget {
  const image = tryParseDigest(query.get("image") ?? "");
  const path = query.getAll("path");
  if (!HEX_DIGEST.test(diffId) || image === undefined) throw invalid("map");
  if (path.length === 0 || !path.every(isMemberId)) throw invalid("path");
  if (path.length > PATH_MEMBERS_MAX) throw tooDeep();
  return { kind: "map", diffId, image, path };
}

function parseOrderTarget(name: string, query: URLSearchParams): ExchangeTarget {
  const image = tryParseDigest(name);
  const from = query.get("from") ?? "0";
  if (image === undefined || !/^\d{1,10}$/.test(from) || Number(from) > ORDER_POSITION_MAX) {
    throw invalid("fetch order");
  }
  return { kind: "order", image, from: Number(from) };
}

function parseDocumentQuestion(query: URLSearchParams): DocumentQuestion {
  const [kind, registry = "", name = "", reference = "", reach] = [
    "kind",
    "registry",
    "name",
    "reference",
    "reach",
  ].map((key) => query.get(key) ?? undefined);
  if (kind !== "manifest" && kind !== "config") throw invalid("kind of document");
  const isDigest = tryParseDigest(reference) !== undefined;
  if (!isDigest && (kind === "config" || !isTag(reference))) throw invalid("reference");
  if (!isDomain(registry) || !isRepository(name)) throw invalid("repository");
  const known = DOCUMENT_REACH.find((each) => each === reach);
  if (known === undefined) throw invalid("reach");
  return { kind, registry, name, reference, reach: known };
}

function unknownTarget(): DaemonError {
  return new DaemonError("not-found", "no such resource");
}

const STATUS: Readonly<Partial<Record<ErrorCode, number>>> = {
  "invalid-argument": 400,
  unauthenticated: 401,
  "permission-denied": 403,
  "not-found": 404,
  unimplemented: 405,
  "failed-precondition": 409,
  "out-of-range": 416,
  "resource-exhausted": 429,
  unavailable: 503,
};

export function httpStatusOf(code: ErrorCode): number {
  return STATUS[code] ?? 500;
}

/** Characters of an error message that travels. */
const MESSAGE_CHARS_MAX = 500;
/** Bytes of a refusal's document that are read. */
export const REFUSAL_BYTES_MAX = 8192;

export function encodeError(error: DaemonError): Buffer {
  const { code, message } = error;
  return Buffer.from(JSON.stringify({ code, message: message.slice(0, MESSAGE_CHARS_MAX) }));
}

/** What a peer said; whatever it is, a DaemonError comes of it. */
export function decodeError(bytes: Uint8Array, who: string): DaemonError {
  try {
    const { code, message } = asRecord(parseJson(bytes), "error");
    if (isErrorCode(code) && typeof message === "string") {
      return new DaemonError(code, `${who}: ${message.slice(0, MESSAGE_CHARS_MAX)}`);
    }
  } catch {
    // what follows says enough
  }
  return new DaemonError("unavailable", `${who} refused without a reason`);
}

/** Whether a peer's refusal says that it is not able now, rather than that it will not. */
export function isPassing(error: DaemonError): boolean {
  return RETRYABLE[error.code];
}
