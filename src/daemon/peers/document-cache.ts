/**
 * Documents that this node has lately had from a registry or a member: manifests and configs by
 * digest, which never change, and what tags meant when they were seen. In memory, bounded.
 */
import { LRUCache } from "lru-cache";
import type { Clock } from "../../base/clock.ts";
import { parseManifestDocument } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { DocumentName, SharedDocument } from "../../peer/index.ts";

/** The least recently used go first. */
export const DOCUMENTS_MAX = 2048;
/** Of all documents together. */
export const DOCUMENT_CACHE_BYTES_MAX = 16 * 1024 * 1024;
/** Tags whose meaning is remembered. */
export const TAGS_MAX = 4096;
/** Digests known to be configs. */
export const CONFIGS_MAX = 8192;

type Kept = Omit<SharedDocument, "ageMs">;

interface SeenTag {
  readonly digest: Digest;
  /** When the registry said so, local clock, ms. */
  readonly seenMs: number;
}

export class DocumentCache {
  readonly #clock: Clock;
  readonly #documents = new LRUCache<string, Kept>({
    max: DOCUMENTS_MAX,
    maxSize: DOCUMENT_CACHE_BYTES_MAX,
    sizeCalculation: ({ bytes }) => Math.max(1, bytes.length),
  });
  readonly #tags = new LRUCache<string, SeenTag>({ max: TAGS_MAX });
  readonly #configs = new LRUCache<string, true>({ max: CONFIGS_MAX });

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Bytes of all documents. */
  get bytes(): number {
    return this.#documents.calculatedSize;
  }

  get count(): number {
    return this.#documents.size;
  }

  /** Whether a manifest that passed here names the blob as its config. */
  isConfig(digest: Digest): boolean {
    return this.#configs.has(digest);
  }

  /** A tag's answer has its age. */
  get({ kind, registry, name, reference }: DocumentName): SharedDocument | undefined {
    const byDigest = this.#documents.get(`${kind} ${reference}`);
    if (byDigest !== undefined) return { ...byDigest, ageMs: 0 };
    const tag = this.#tags.get(tagKey(registry, name, reference));
    if (kind !== "manifest" || tag === undefined) return undefined;
    const kept = this.#documents.get(`${kind} ${tag.digest}`);
    return kept === undefined ? undefined : { ...kept, ageMs: this.#clock.nowMs() - tag.seenMs };
  }

  /** `document` was checked: it is what the name asks for. */
  keep({ kind, registry, name, reference }: DocumentName, document: SharedDocument): void {
    const { ageMs, digest, bytes, mediaType } = document;
    this.#documents.set(`${kind} ${digest}`, { bytes, mediaType, digest });
    if (kind !== "manifest") return;
    const parsed = parseManifestDocument(bytes, { mediaType });
    if (parsed.kind === "manifest") this.#configs.set(parsed.manifest.config.digest, true);
    if (reference === digest || ageMs === undefined) return;
    const seenMs = this.#clock.nowMs() - ageMs;
    const key = tagKey(registry, name, reference);
    // An answer that was long under way does not replace a younger one.
    if ((this.#tags.get(key)?.seenMs ?? -Infinity) > seenMs) return;
    this.#tags.set(key, { digest, seenMs });
  }
}

function tagKey(registry: string, name: string, tag: string): string {
  return `${registry}/${name}:${tag}`;
}
