/**
 * What this node knows of images, as a registry: manifests and tags as they were seen, configs, and
 * layers from the cache, the trees, and where need be the registry. For plain OCI clients.
 */
import { throwIfAborted } from "../../base/abort.ts";
import { DaemonError } from "../../base/errors.ts";
import type { ByteRange } from "../../base/range-set.ts";
import { FETCH_PRIORITY, isSequential } from "../../block/index.ts";
import type { BlockResolver, BlockTable } from "../../block/index.ts";
import { digestHex, digestOf, tryParseReference } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import type {
  DocumentProvider,
  ProvidedBlob,
  ProvidedManifest,
  Repository,
} from "../../peer/index.ts";
import type { ImageSources } from "../image-sources.ts";
import type { ImageRecord, ImageStore } from "../image-store.ts";
import type { LayerStore } from "../layer-store.ts";

const DEFAULT_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";

export interface DocumentParts {
  readonly images: ImageStore;
  readonly layers: LayerStore;
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

  async manifest(repository: Repository, reference: string): Promise<ProvidedManifest | undefined> {
    const record = this.#parts.images.images.find(
      (image) => isNamed(image, repository, reference) || image.manifestDigest === reference,
    );
    if (record === undefined) return undefined;
    const bytes = Buffer.from(record.manifest);
    const { manifestDigest: digest } = record;
    return { bytes, mediaType: mediaTypeOf(record.manifest), digest };
  }

  async blob(_repository: Repository, digest: Digest): Promise<ProvidedBlob | undefined> {
    for (const image of this.#parts.images.images) {
      const config = Buffer.from(image.config);
      if (digestOf(config) === digest) return documentBlob(config);
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
    return undefined;
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

function documentBlob(bytes: Uint8Array): ProvidedBlob {
  return {
    size: bytes.length,
    async *read({ start, end }) {
      yield await Promise.resolve(bytes.subarray(start, end));
    },
  };
}

/** Whether the image was seen under that tag of that repository. */
function isNamed(image: ImageRecord, { registry, name }: Repository, tag: string): boolean {
  const reference = tryParseReference(image.reference);
  if (reference?.repository !== name || reference.tag !== tag) return false;
  return registry === undefined || reference.domain === registry;
}

function mediaTypeOf(manifest: string): string {
  const { mediaType } = JSON.parse(manifest) as { readonly mediaType?: unknown };
  return typeof mediaType === "string" ? mediaType : DEFAULT_MANIFEST_TYPE;
}
