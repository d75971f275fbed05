/** Digests, diff IDs and chain IDs. Source: OCI image-spec v1.1, descriptor.md and config.md. */
import { createHash } from "node:crypto";
import { DaemonError } from "../base/errors.ts";
import type { Brand } from "../base/brand.ts";

/** `sha256:` and 64 lower-case hex digits. */
export type Digest = Brand<string, "Digest">;
/** Digest of a layer's uncompressed tar stream. */
export type DiffId = Brand<Digest, "DiffId">;
/** Digest of a chain of diff IDs. */
export type ChainId = Brand<Digest, "ChainId">;

const DIGEST_PATTERN = /^sha256:[0-9a-f]{64}$/;

export function tryParseDigest(text: string): Digest | undefined {
  return DIGEST_PATTERN.test(text) ? (text as Digest) : undefined;
}

/** Throws `invalid-argument`; only sha256 is supported. */
export function parseDigest(text: string): Digest {
  const digest = tryParseDigest(text);
  if (digest === undefined) {
    throw new DaemonError("invalid-argument", `not a sha256 digest: ${text.slice(0, 100)}`);
  }
  return digest;
}

export function parseDiffId(text: string): DiffId {
  return parseDigest(text) as DiffId;
}

export function parseChainId(text: string): ChainId {
  return parseDigest(text) as ChainId;
}

/** The 64 hex digits after `sha256:`. */
export function digestHex(digest: Digest): string {
  return digest.slice("sha256:".length);
}

export function digestFromHash(sha256: Uint8Array): Digest {
  return parseDigest(`sha256:${Buffer.from(sha256).toString("hex")}`);
}

export function digestOf(bytes: Uint8Array): Digest {
  return digestFromHash(createHash("sha256").update(bytes).digest());
}

/**
 * Chain IDs of every prefix, bottom first: result[i] is that of layers 0…i.
 * Source: OCI image-spec v1.1, config.md, "Layer ChainID".
 */
export function chainIds(diffIds: readonly DiffId[]): ChainId[] {
  const result: ChainId[] = [];
  for (const diffId of diffIds) {
    const below = result.at(-1);
    result.push(
      parseChainId(below === undefined ? diffId : digestOf(Buffer.from(`${below} ${diffId}`))),
    );
  }
  return result;
}
