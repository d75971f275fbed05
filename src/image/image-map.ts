/** An image map: which layer maps, in which order, make an image. A pure record and its parser. */
import { DaemonError } from "../base/errors.ts";
import { parseDiffId, parseDigest, type Digest, type DiffId } from "../oci/index.ts";

const IMAGE_MAP_VERSION = 1;
/** Source: overlayfs, and the most devices that one EROFS mount's options can name. */
export const IMAGE_LAYERS_MAX = 500;

export interface ImageMapLayer {
  /** Names the layer map. */
  readonly diffId: DiffId;
  readonly blobDigest: Digest;
  readonly blobBytes: number;
  readonly mediaType: string;
}

export interface ImageMap {
  /** Of the image's manifest. */
  readonly manifestDigest: Digest;
  /** Bottom first. */
  readonly layers: readonly ImageMapLayer[];
}

/** Equal maps give equal bytes. */
export function encodeImageMap(map: ImageMap): Buffer {
  const layers = map.layers.map(({ diffId, blobDigest, blobBytes, mediaType }) => ({
    diffId,
    blobDigest,
    blobBytes,
    mediaType,
  }));
  const record = { version: IMAGE_MAP_VERSION, manifestDigest: map.manifestDigest, layers };
  return Buffer.from(`${JSON.stringify(record)}\n`);
}

/** Throws `data-loss`. */
export function parseImageMap(bytes: Uint8Array): ImageMap {
  try {
    return parse(asRecord(JSON.parse(Buffer.from(bytes).toString("utf8")), "image map"));
  } catch (error) {
    throw new DaemonError("data-loss", "malformed image map", { cause: error });
  }
}

function parse(record: Readonly<Record<string, unknown>>): ImageMap {
  if (record["version"] !== IMAGE_MAP_VERSION) throw malformed("version");
  const layers: unknown = record["layers"];
  if (!Array.isArray(layers) || layers.length > IMAGE_LAYERS_MAX) throw malformed("layers");
  return {
    manifestDigest: parseDigest(text(record, "manifestDigest")),
    layers: layers.map((layer: unknown) => parseLayer(asRecord(layer, "layer"))),
  };
}

function parseLayer(record: Readonly<Record<string, unknown>>): ImageMapLayer {
  const blobBytes = record["blobBytes"];
  if (typeof blobBytes !== "number" || !Number.isSafeInteger(blobBytes) || blobBytes < 0) {
    throw malformed("blobBytes");
  }
  return {
    diffId: parseDiffId(text(record, "diffId")),
    blobDigest: parseDigest(text(record, "blobDigest")),
    blobBytes,
    mediaType: text(record, "mediaType"),
  };
}

function asRecord(value: unknown, name: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw malformed(name);
  return value as Readonly<Record<string, unknown>>;
}

function text(record: Readonly<Record<string, unknown>>, key: string): string {
  const value = record[key];
  if (typeof value !== "string") throw malformed(key);
  return value;
}

function malformed(what: string): DaemonError {
  return new DaemonError("data-loss", `${what} of an image map`);
}
