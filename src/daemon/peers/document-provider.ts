/**
 * Images as this node has them, as a registry: manifests, tags and configs from here, from their
 * owner or from the registry, and layers of images that are known here from the cache, the trees,
 * and where need be the registry. For plain OCI clients.
 */
import { throwIfAborted } from "../../base/abort.ts";
import { DaemonError, errorCode } from "../../base/errors.ts";
import type { ByteRange } from "../../base/range-set.ts";
import { FETCH_PRIORITY, isSequential } from "../../block/index.ts";
import type { BlockResolver, BlockTable } from "../../block/index.ts";
import { digestHex, isDomain, tryParseDigest } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import type {
  DocumentName,
  DocumentProvider,
  ProvidedBlob,
  ProvideDocumentOptions,
  ProvidedManifest,
  Repository,
  SharedDocument,
} from "../../peer/index.ts";
import { isLocalOnly, splitHostPort } from "../../registry/index.ts";
import { USER_AGENT } from "../environment.ts";
import type { ImageSources } from "../image-sources.ts";
import type { ImageStore } from "../image-store.ts";
import type { LayerStore } from "../layer-store.ts";
import type { DocumentOwner } from "./document-owner.ts";
import { configDigest, storedDocument } from "./document-places.ts";

export interface DocumentParts {
  readonly documents: Pick<DocumentOwner, "get" | "isConfig">;
  readonly images: Pick<ImageStore, "images" | "sourcesOf">;
  readonly layers: Pick<LayerStore, "has" | "openLayer">;
  readonly resolver: BlockResolver;
  readonly sources: ImageSources;
}

interface SignalOption {
  readonly signal: AbortSignal;
}

export class CachedDocuments implements DocumentProvider {
  readonly #parts: DocumentParts;

  constructor(parts: DocumentParts) {
    this.#parts = parts;
  }

  async manifest(
    repository: Repository,
    reference: string,
    { signal, userAgent }: ProvideDocumentOptions,
  ): Promise<ProvidedManifest | undefined> {
    const { registry, name } = repository;
    const isTag = tryParseDigest(reference) === undefined;
    // It asks for an owner, who asks because nobody knows better: or it would wait for itself.
    const isOwn = userAgent === USER_AGENT;
    if (isOwn && isTag) return undefined;
    const wanted = { kind: "manifest", registry, name, reference } as const;
    if (registry === undefined || isOwn || !canBeAsked(registry)) {
      return storedDocument(this.#parts.images.images, wanted);
    }
    return this.#shared({ ...wanted, registry }, signal);
  }

  async blob(
    { registry, name }: Repository,
    digest: Digest,
    { signal, userAgent }: ProvideDocumentOptions,
  ): Promise<ProvidedBlob | undefined> {
    const isOwn = userAgent === USER_AGENT;
    for (const image of this.#parts.images.images) {
      if (configDigest(image) === digest) return documentBlob(Buffer.from(image.config));
      // A daemon that has this mirror in its hosts.toml would wait for the block that it fetches.
      if (isOwn) continue;
      const layer = image.layers.find(({ blobDigest }) => blobDigest === digest);
      if (layer === undefined || !this.#parts.layers.has(layer.diffId)) continue;
      const { map } = await this.#parts.layers.openLayer(layer.diffId);
      if (map.info.blobDigest !== digest) continue;
      const id = digestHex(layer.diffId);
      return {
        size: layer.blobBytes,
        read: (range, options) => this.#read({ id, digest, table: map.blockTable }, range, options),
      };
    }
    if (registry === undefined || isOwn || !canBeAsked(registry)) return undefined;
    if (!this.#parts.documents.isConfig(digest)) return undefined;
    const wanted = { kind: "config", registry, name, reference: digest } as const;
    const found = await this.#shared(wanted, signal);
    return found === undefined ? undefined : documentBlob(found.bytes);
  }

  /** Undefined where the client is to ask the registry with its own credentials. */
  async #shared(wanted: DocumentName, signal: AbortSignal): Promise<SharedDocument | undefined> {
    try {
      return await this.#parts.documents.get(wanted, { signal });
    } catch (error) {
      throwIfAborted(signal);
      if (["internal", "unavailable", "deadline-exceeded"].includes(errorCode(error))) throw error;
      return undefined;
    }
  }

  /** Block by block; what lies between blocks (a gzip trailer, say) only the registry has. */
  async *#read(
    layer: { readonly id: string; readonly digest: Digest; readonly table: BlockTable },
    range: ByteRange,
    { signal }: SignalOption,
  ): AsyncGenerator<Uint8Array> {
    let { start: position } = range;
    for (let index = 0; index < layer.table.count && position < range.end; index += 1) {
      const block = layer.table.at(index);
      const end = block.blobOffset + block.blobLength;
      if (end <= position || isSequential(block)) continue;
      if (block.blobOffset >= range.end) break;
      if (block.blobOffset > position) {
        yield* this.#gap(layer.digest, { start: position, end: block.blobOffset }, signal);
        position = block.blobOffset;
      }
      const bytes = await this.#block(layer.id, index, signal);
      const upTo = Math.min(end, range.end);
      yield bytes.subarray(position - block.blobOffset, upTo - block.blobOffset);
      position = upTo;
    }
    if (position < range.end) yield* this.#gap(layer.digest, { ...range, start: position }, signal);
  }

  /** A whole block, verified. */
  async #block(layerId: string, index: number, signal: AbortSignal): Promise<Uint8Array> {
    const opened = await this.#parts.resolver.openBlob(layerId, index, {
      priority: FETCH_PRIORITY.readAhead,
      signal,
      mayFetch: true,
    });
    if (opened === undefined) throw new DaemonError("not-found", "the block is not to be had");
    const bytes = Buffer.alloc(opened.length);
    let filled = 0;
    for await (const piece of opened.pieces) {
      bytes.set(piece, filled);
      filled += piece.length;
    }
    await opened.verdict;
    return bytes;
  }

  async *#gap(digest: Digest, range: ByteRange, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const [place] = this.#parts.images.sourcesOf(digest);
    if (place === undefined) throw new DaemonError("not-found", `nobody has blob ${digest}`);
    const source = await this.#parts.sources.get(place);
    throwIfAborted(signal);
    yield* await source.open(digest, range, { signal, verify: false });
  }
}

/** A program of this machine is not to make the daemon ask what only this machine reaches. */
function canBeAsked(registry: string): boolean {
  return isDomain(registry) && !isLocalOnly(splitHostPort(registry).host);
}

function documentBlob(bytes: Uint8Array): ProvidedBlob {
  return {
    size: bytes.length,
    async *read({ start, end }) {
      yield await Promise.resolve(bytes.subarray(start, end));
    },
  };
}
