/**
 * What `docker save` writes. Source: moby, image/tarexport (manifest.json) and the "Docker image
 * specification v1.2", combined image JSON + filesystem changeset format.
 *
 * There is no OCI manifest inside, so one is made: always the same for the same archive. A layer
 * is an uncompressed tar: its blob is the byte range, its digest the diff ID. Some builders store
 * compressed layers all the same; these are hashed once.
 */
import { open } from "node:fs/promises";
import { DaemonError, withContext } from "../../base/errors.ts";
import type { ByteRange } from "../../base/range-set.ts";
import { SingleFlight } from "../../base/single-flight.ts";
import {
  digestOf,
  DOCUMENT_BYTES_MAX,
  formatReference,
  LAYERS_MAX,
  MEDIA_TYPES,
  parseImageConfig,
  tryParseReference,
} from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { BlobOptions, ImageSource, ResolvedImage, ResolveOptions } from "../image-source.ts";
import { resolveImage } from "../resolve-image.ts";
import { hashRegion, openRegion, readRegion } from "./file-range.ts";
import { indexTar } from "./tar-index.ts";
import type { TarIndex } from "./tar-index.ts";

const IMAGES_MAX = 4096;
const TAGS_MAX = 1024;

interface SavedImage {
  readonly config: string;
  readonly tags: readonly string[];
  readonly layers: readonly string[];
}

function strings(value: unknown, max: number): readonly string[] | undefined {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || value.length > max) return undefined;
  return value.every((item) => typeof item === "string") ? value : undefined;
}

/** manifest.json. Throws `data-loss`. */
export function parseSavedImages(bytes: Uint8Array): readonly SavedImage[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    value = undefined;
  }
  if (!Array.isArray(value) || value.length > IMAGES_MAX) {
    throw new DaemonError("data-loss", "manifest.json: not a list of images");
  }
  return value.map((item: unknown, position) => {
    const fields = typeof item === "object" && item !== null ? item : {};
    const config: unknown = Reflect.get(fields, "Config");
    const layers = strings(Reflect.get(fields, "Layers"), LAYERS_MAX);
    const tags = strings(Reflect.get(fields, "RepoTags"), TAGS_MAX);
    if (typeof config !== "string" || layers === undefined || tags === undefined) {
      throw new DaemonError("data-loss", `manifest.json: image ${position} is malformed`);
    }
    return { config, layers, tags };
  });
}

function canonical(name: string): string {
  const reference = tryParseReference(name);
  return reference === undefined ? name : formatReference(reference);
}

export function selectSavedImage(
  images: readonly SavedImage[],
  name: string | undefined,
  place: string,
): SavedImage {
  const names = images.flatMap(({ tags }) => tags);
  const there = names.length === 0 ? "" : `; there is ${names.slice(0, 16).join(", ")}`;
  if (name !== undefined) {
    const wanted = canonical(name);
    const found = images.find(({ tags }) => tags.some((tag) => canonical(tag) === wanted));
    if (found !== undefined) return found;
    throw new DaemonError("not-found", `${place} has no image "${name}"${there}`);
  }
  const [only] = images;
  if (only === undefined) throw new DaemonError("not-found", `${place} holds no image`);
  if (images.length === 1) return only;
  throw new DaemonError("invalid-argument", `${place} holds several images: name one${there}`);
}

type Compression = "none" | "gzip" | "zstd";

const LAYER_TYPES: Readonly<Record<Compression, string>> = {
  none: MEDIA_TYPES.ociLayer,
  gzip: MEDIA_TYPES.ociLayerGzip,
  zstd: MEDIA_TYPES.ociLayerZstd,
};

/** A tar begins with a name, which neither magic number is. */
async function sniff(path: string, range: ByteRange): Promise<Compression> {
  const file = await open(path, "r");
  try {
    const wanted = Math.min(4, range.end - range.start);
    const { buffer } = await file.read(Buffer.alloc(4), 0, wanted, range.start);
    if (buffer.readUInt16BE(0) === 0x1f8b) return "gzip";
    return buffer.readUInt32LE(0) === 0xfd2fb528 ? "zstd" : "none";
  } finally {
    await file.close();
  }
}

interface MadeImage {
  readonly manifestBytes: Buffer;
  readonly configBytes: Buffer;
  readonly blobs: ReadonlyMap<Digest, ByteRange>;
}

export interface DockerArchiveOptions {
  readonly description: string;
  readonly path: string;
  /** `NAME[:TAG]` as given to docker save; undefined is the only image. */
  readonly name: string | undefined;
}

export class DockerArchiveSource implements ImageSource {
  readonly description: string;
  readonly #options: DockerArchiveOptions;
  readonly #flights = new SingleFlight<"image", MadeImage>();
  #made: MadeImage | undefined;

  constructor(options: DockerArchiveOptions) {
    this.description = options.description;
    this.#options = options;
  }

  async resolve(options: ResolveOptions): Promise<ResolvedImage> {
    try {
      const { manifestBytes, configBytes } = await this.#image(options);
      const none = (): Promise<never> =>
        Promise.reject(new DaemonError("not-found", "an archive has no further manifests"));
      return await resolveImage(
        { bytes: manifestBytes, digest: digestOf(manifestBytes), mediaType: undefined },
        { manifest: none, config: () => Promise.resolve(configBytes) },
        options,
      );
    } catch (error) {
      throw withContext(error, `cannot resolve ${this.description}`);
    }
  }

  async open(
    digest: Digest,
    range: ByteRange | undefined,
    options: BlobOptions,
  ): Promise<AsyncIterable<Uint8Array>> {
    const { blobs } = await this.#image(options);
    const place = blobs.get(digest);
    if (place === undefined) {
      throw new DaemonError("not-found", `${this.description} has no blob ${digest}`);
    }
    return openRegion({ path: this.#options.path, range: place }, digest, range, options);
  }

  async #image({ signal }: { readonly signal: AbortSignal }): Promise<MadeImage> {
    const make = (inner: AbortSignal): Promise<MadeImage> => this.#make({ signal: inner });
    this.#made ??= await this.#flights.run("image", make, { signal });
    return this.#made;
  }

  async #make(options: { readonly signal: AbortSignal }): Promise<MadeImage> {
    const { path, name } = this.#options;
    const index = await indexTar(path, options);
    const list = { path, range: locate(index, "manifest.json", this.description) };
    const images = parseSavedImages(await readRegion(list, DOCUMENT_BYTES_MAX, options));
    const image = selectSavedImage(images, name, this.description);
    const configRange = locate(index, image.config, this.description);
    const configBytes = await readRegion({ path, range: configRange }, DOCUMENT_BYTES_MAX, options);
    const { diffIds } = parseImageConfig(configBytes);
    const blobs = new Map<Digest, ByteRange>();
    const layers: object[] = [];
    for (const [position, layer] of image.layers.entries()) {
      const range = locate(index, layer, this.description);
      const compression = await sniff(path, range);
      const diffId = diffIds[position];
      const digest =
        compression === "none" && diffId !== undefined
          ? diffId
          : await hashRegion({ path, range }, options);
      blobs.set(digest, range);
      const size = range.end - range.start;
      layers.push({ mediaType: LAYER_TYPES[compression], digest, size });
    }
    const configDigest = digestOf(configBytes);
    blobs.set(configDigest, configRange);
    const manifest = {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: { mediaType: MEDIA_TYPES.ociConfig, digest: configDigest, size: configBytes.length },
      layers,
    };
    return { manifestBytes: Buffer.from(JSON.stringify(manifest)), configBytes, blobs };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

function locate(index: TarIndex, name: string, archive: string): ByteRange {
  const range = index.find(name);
  if (range === undefined) throw new DaemonError("data-loss", `${archive} has no ${name}`);
  return range;
}
