/**
 * Image manifests and image indexes, OCI's and Docker's schema 2.
 * Source: OCI image-spec v1.1, manifest.md and image-index.md; distribution, manifest-v2-2.md.
 */
import { DaemonError } from "../base/errors.ts";
import { descriptorOf } from "./descriptor.ts";
import type { Descriptor } from "./descriptor.ts";
import {
  jsonObject,
  optionalArray,
  optionalObject,
  optionalString,
  parseJsonDocument,
  requiredObject,
  stringMap,
} from "./json.ts";
import type { JsonNode } from "./json.ts";
import { INDEX_ENTRIES_MAX, LAYERS_MAX, MEDIA_TYPE_CHARS_MAX } from "./limits.ts";
import {
  bareMediaType,
  isIndexType,
  isManifestType,
  isSchema1Type,
  MEDIA_TYPES,
} from "./media-type.ts";

export interface ImageManifest {
  readonly mediaType: string;
  readonly config: Descriptor;
  /** Bottom first. */
  readonly layers: readonly Descriptor[];
  readonly annotations: ReadonlyMap<string, string>;
  readonly subject: Descriptor | undefined;
  readonly artifactType: string | undefined;
}

export interface ImageIndex {
  readonly mediaType: string;
  readonly manifests: readonly Descriptor[];
  readonly annotations: ReadonlyMap<string, string>;
}

export type ManifestDocument =
  | { readonly kind: "manifest"; readonly manifest: ImageManifest }
  | { readonly kind: "index"; readonly index: ImageIndex };

/**
 * The document's own `mediaType` decides, else what the server or the descriptor said, else its
 * shape. A document that is both an index and a manifest is refused: two readers could see two
 * images under one digest (CVE-2021-41190).
 */
function kindOf(node: JsonNode, servedAs: string | undefined): { kind: string; type: string } {
  const own = optionalString(node, "mediaType", { charsMax: MEDIA_TYPE_CHARS_MAX });
  const hasManifests = Object.hasOwn(node.value, "manifests");
  const hasLayers = Object.hasOwn(node.value, "layers") || Object.hasOwn(node.value, "config");
  if (hasManifests && hasLayers) {
    throw new DaemonError("data-loss", `${node.at}: is an index and a manifest at once`);
  }
  const type = bareMediaType(own ?? servedAs ?? "");
  const isSchema1 = node.value["schemaVersion"] === 1 || isSchema1Type(type);
  if (isSchema1) {
    throw new DaemonError(
      "unimplemented",
      `${node.at}: Docker schema 1 manifests are not supported; push the image again`,
    );
  }
  if (isIndexType(type) && !hasLayers) return { kind: "index", type };
  if (isManifestType(type) && !hasManifests) return { kind: "manifest", type };
  if (own === undefined && hasManifests) return { kind: "index", type: MEDIA_TYPES.ociIndex };
  if (own === undefined && hasLayers) return { kind: "manifest", type: MEDIA_TYPES.ociManifest };
  throw new DaemonError("data-loss", `${node.at}: neither an image index nor an image manifest`);
}

/**
 * Parses either; `mediaType` is what the descriptor or the server called it.
 * Throws `data-loss` or `unimplemented` (schema 1, other digests).
 */
export function parseManifestDocument(
  bytes: Uint8Array,
  options: { readonly mediaType?: string | undefined } = {},
): ManifestDocument {
  const node = parseJsonDocument(bytes, "manifest");
  const { kind, type } = kindOf(node, options.mediaType);
  if (kind === "index") return { kind: "index", index: indexOf(node, type) };
  return { kind: "manifest", manifest: manifestOf(node, type) };
}

export function parseImageManifest(
  bytes: Uint8Array,
  options: { readonly mediaType?: string | undefined } = {},
): ImageManifest {
  const document = parseManifestDocument(bytes, options);
  if (document.kind !== "manifest") {
    throw new DaemonError("data-loss", "manifest: is an image index");
  }
  return document.manifest;
}

export function parseImageIndex(
  bytes: Uint8Array,
  options: { readonly mediaType?: string | undefined } = {},
): ImageIndex {
  const document = parseManifestDocument(bytes, options);
  if (document.kind !== "index") throw new DaemonError("data-loss", "index: is an image manifest");
  return document.index;
}

function manifestOf(node: JsonNode, mediaType: string): ImageManifest {
  const subject = optionalObject(node, "subject");
  return {
    mediaType,
    config: descriptorOf(requiredObject(node, "config")),
    layers: optionalArray(node, "layers", { max: LAYERS_MAX }).map((value, position) =>
      descriptorOf(jsonObject(value, `${node.at}.layers[${position}]`)),
    ),
    annotations: stringMap(node, "annotations"),
    subject: subject === undefined ? undefined : descriptorOf(subject),
    artifactType: optionalString(node, "artifactType", { charsMax: MEDIA_TYPE_CHARS_MAX }),
  };
}

function indexOf(node: JsonNode, mediaType: string): ImageIndex {
  return {
    mediaType,
    manifests: optionalArray(node, "manifests", { max: INDEX_ENTRIES_MAX }).map((value, position) =>
      descriptorOf(jsonObject(value, `${node.at}.manifests[${position}]`)),
    ),
    annotations: stringMap(node, "annotations"),
  };
}
