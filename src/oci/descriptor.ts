/** Content descriptors. Source: OCI image-spec v1.1, descriptor.md. */
import { DaemonError } from "../base/errors.ts";
import { digestOf, tryParseDigest } from "./digest.ts";
import type { Digest } from "./digest.ts";
import {
  optionalObject,
  optionalString,
  requiredSize,
  requiredString,
  stringArray,
  stringMap,
} from "./json.ts";
import type { JsonNode } from "./json.ts";
import { BLOB_BYTES_MAX, MEDIA_TYPE_CHARS_MAX } from "./limits.ts";
import { bareMediaType } from "./media-type.ts";
import { tryPlatformOfJson } from "./platform.ts";
import type { Platform } from "./platform.ts";

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  /** Other places to fetch it from; never followed, only the mark of a foreign layer. */
  readonly urls: readonly string[];
  readonly annotations: ReadonlyMap<string, string>;
  readonly platform: Platform | undefined;
  readonly artifactType: string | undefined;
}

const DIGEST_CHARS_MAX = 256;
const URLS_MAX = 64;
const URL_CHARS_MAX = 4096;

/** Throws `data-loss` on a malformed one, `unimplemented` on another digest than sha256. */
export function descriptorOf(node: JsonNode): Descriptor {
  const digestText = requiredString(node, "digest", { charsMax: DIGEST_CHARS_MAX });
  const digest = tryParseDigest(digestText);
  if (digest === undefined) {
    const isOther = /^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+$/.test(digestText);
    throw new DaemonError(
      isOther && !digestText.startsWith("sha256:") ? "unimplemented" : "data-loss",
      `${node.at}.digest: not a sha256 digest`,
    );
  }
  const platform = optionalObject(node, "platform");
  return {
    mediaType: bareMediaType(requiredString(node, "mediaType", { charsMax: MEDIA_TYPE_CHARS_MAX })),
    digest,
    size: requiredSize(node, "size", { max: BLOB_BYTES_MAX }),
    urls: stringArray(node, "urls", { max: URLS_MAX, charsMax: URL_CHARS_MAX }),
    annotations: stringMap(node, "annotations"),
    platform: platform === undefined ? undefined : tryPlatformOfJson(platform),
    artifactType: optionalString(node, "artifactType", { charsMax: MEDIA_TYPE_CHARS_MAX }),
  };
}

/** Throws `data-loss` when the bytes are not what the descriptor names. */
export function verifyContent(
  bytes: Uint8Array,
  expected: { readonly digest: Digest; readonly size?: number },
): void {
  if (expected.size !== undefined && bytes.length !== expected.size) {
    throw new DaemonError(
      "data-loss",
      `content ${expected.digest} has ${bytes.length} bytes, expected ${expected.size}`,
    );
  }
  const actual = digestOf(bytes);
  if (actual !== expected.digest) {
    throw new DaemonError("data-loss", `content ${expected.digest} hashes to ${actual}`);
  }
}
