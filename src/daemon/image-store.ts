/**
 * What is known of images: one JSON record per manifest digest, with the manifest and config as
 * they were, and every repository that was seen to hold it. From them follow the layers, every
 * chain prefix, and where a layer's blob can be had.
 */
import { readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { DaemonError, errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { chainIds, parseDiffId, parseDigest } from "../oci/index.ts";
import type { ChainId, DiffId, Digest } from "../oci/index.ts";
import { readJsonFile, writeJsonFile } from "./json-file.ts";
import { imageRecordPath } from "./paths.ts";
import type { RootPaths } from "./paths.ts";

/** Repositories remembered per image; the least recently seen goes first. */
const SOURCES_PER_IMAGE_MAX = 16;

export interface LayerRecord {
  readonly diffId: DiffId;
  readonly blobDigest: Digest;
  readonly blobBytes: number;
  readonly mediaType: string;
}

export interface ImageRecord {
  readonly manifestDigest: Digest;
  /** As given: `host[:port]/repository[:tag][@digest]`, or an archive (`oci:DIR`). */
  readonly reference: string;
  /** Where it can be had, the newest first: `host[:port]/repository` or an archive. */
  readonly sources: readonly string[];
  readonly manifest: string;
  readonly config: string;
  readonly layers: readonly LayerRecord[];
}

const recordSchema = z.strictObject({
  manifestDigest: z.string().transform(parseDigest),
  reference: z.string(),
  sources: z.array(z.string()).max(SOURCES_PER_IMAGE_MAX),
  manifest: z.string(),
  config: z.string(),
  layers: z.array(
    z.strictObject({
      diffId: z.string().transform(parseDiffId),
      blobDigest: z.string().transform(parseDigest),
      blobBytes: z.int().min(0),
      mediaType: z.string(),
    }),
  ),
});

export class ImageStore {
  readonly #paths: RootPaths;
  readonly #images = new Map<Digest, ImageRecord>();
  readonly #chains = new Map<ChainId, readonly LayerRecord[]>();
  /** The images that have the chain, those that end with it first. */
  readonly #imagesByChain = new Map<ChainId, Digest[]>();
  /** Sources of a blob, in order of preference, by blob digest. */
  readonly #blobSources = new Map<Digest, string[]>();

  private constructor(paths: RootPaths) {
    this.#paths = paths;
  }

  /** A damaged record is set aside with a log line: one image must not stop all others. */
  static async open(paths: RootPaths, log: Logger): Promise<ImageStore> {
    const store = new ImageStore(paths);
    for (const name of await readdir(paths.images)) {
      const path = join(paths.images, name);
      if (name.endsWith(".tmp")) await unlink(path);
      if (!name.endsWith(".json")) continue;
      try {
        store.#remember(recordSchema.parse(await readJsonFile(path)));
      } catch (error) {
        log.error("image-record-damaged", { path, reason: errorMessage(error) });
      }
    }
    return store;
  }

  get images(): readonly ImageRecord[] {
    return [...this.#images.values()];
  }

  image(manifest: Digest): ImageRecord | undefined {
    return this.#images.get(manifest);
  }

  /** The layers of a chain, bottom first; undefined for a chain of no known image. */
  chain(chainId: ChainId): readonly LayerRecord[] | undefined {
    return this.#chains.get(chainId);
  }

  /** The image that a mount of the chain is most likely of. */
  imageOfChain(chainId: ChainId): ImageRecord | undefined {
    const [first] = this.#imagesByChain.get(chainId) ?? [];
    return first === undefined ? undefined : this.#images.get(first);
  }

  sourcesOf(blob: Digest): readonly string[] {
    return this.#blobSources.get(blob) ?? [];
  }

  /** Adds an image, or a further source of a known one (which then comes first). */
  async add(record: ImageRecord): Promise<void> {
    const known = this.#images.get(record.manifestDigest);
    const sources = [...new Set([...record.sources, ...(known?.sources ?? [])])];
    const merged = { ...record, sources: sources.slice(0, SOURCES_PER_IMAGE_MAX) };
    if (known !== undefined && sameSources(known, merged)) return;
    await writeJsonFile(imageRecordPath(this.#paths, record.manifestDigest), merged);
    this.#remember(merged);
  }

  #remember(record: ImageRecord): void {
    this.#images.set(record.manifestDigest, record);
    const ids = chainIds(record.layers.map((layer) => layer.diffId));
    ids.forEach((id, index) => {
      if (!this.#chains.has(id)) this.#chains.set(id, record.layers.slice(0, index + 1));
      const images = (this.#imagesByChain.get(id) ?? []).filter(
        (digest) => digest !== record.manifestDigest,
      );
      if (index === ids.length - 1) images.unshift(record.manifestDigest);
      else images.push(record.manifestDigest);
      this.#imagesByChain.set(id, images);
    });
    for (const layer of record.layers) {
      const seen = this.#blobSources.get(layer.blobDigest) ?? [];
      this.#blobSources.set(layer.blobDigest, [...new Set([...record.sources, ...seen])]);
    }
  }
}

function sameSources(a: ImageRecord, b: ImageRecord): boolean {
  return a.sources.length === b.sources.length && a.sources.every((s, i) => s === b.sources[i]);
}

/** The layers with their chain IDs. */
export function layersWithChains(
  layers: readonly LayerRecord[],
): readonly (LayerRecord & { readonly chainId: ChainId })[] {
  const ids = chainIds(layers.map((layer) => layer.diffId));
  return layers.map((layer, index) => {
    const chainId = ids[index];
    if (chainId === undefined) throw new DaemonError("internal", "chain IDs are out of step");
    return { ...layer, chainId };
  });
}
