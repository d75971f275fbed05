/**
 * Images in an OCI image layout: a folder (`oci:DIR`) or the same in a tar (`oci-archive:FILE`).
 * Source: OCI image-spec v1.1, image-layout.md.
 */
import { join } from "node:path";
import { DaemonError, systemErrorName, withContext } from "../../base/errors.ts";
import type { ByteRange } from "../../base/range-set.ts";
import { SingleFlight } from "../../base/single-flight.ts";
import {
  digestHex,
  digestOf,
  DOCUMENT_BYTES_MAX,
  parseImageIndex,
  MEDIA_TYPES,
  tryParseDigest,
  verifyContent,
} from "../../oci/index.ts";
import type { Descriptor, Digest } from "../../oci/index.ts";
import type { BlobOptions, ImageSource, ResolvedImage, ResolveOptions } from "../image-source.ts";
import { resolveImage } from "../resolve-image.ts";
import type { RawManifest } from "../resolve-image.ts";
import { openRegion, readRegion } from "./file-range.ts";
import type { FileRegion } from "./file-range.ts";
import { indexTar } from "./tar-index.ts";
import type { TarIndex } from "./tar-index.ts";

/** Finds a file of the layout; undefined when there is none. */
export type LayoutFiles = (
  name: string,
  options: { readonly signal: AbortSignal },
) => Promise<FileRegion | undefined>;

const TAG_ANNOTATION = "org.opencontainers.image.ref.name";
/** The full reference, as containerd's and docker's exports write it. */
const NAME_ANNOTATION = "io.containerd.image.name";

export function folderFiles(folder: string): LayoutFiles {
  return (name) => Promise.resolve({ path: join(folder, name), range: undefined });
}

/** Indexed at the first look-up. */
export function archiveFiles(path: string): LayoutFiles {
  const flights = new SingleFlight<"index", TarIndex>();
  let index: TarIndex | undefined;
  return async (name, options) => {
    index ??= await flights.run("index", (signal) => indexTar(path, { signal }), options);
    const range = index.find(name);
    return range === undefined ? undefined : { path, range };
  };
}

function nameOf(descriptor: Descriptor): string | undefined {
  return descriptor.annotations.get(TAG_ANNOTATION);
}

function hasTag(descriptor: Descriptor, tag: string): boolean {
  const name = descriptor.annotations.get(NAME_ANNOTATION);
  return nameOf(descriptor) === tag || name === tag || (name?.endsWith(`:${tag}`) ?? false);
}

/** The entries of index.json that are meant: by tag, by digest, or all where there is one name. */
export function selectEntries(
  entries: readonly Descriptor[],
  tag: string | undefined,
  place: string,
): readonly Descriptor[] {
  const names = [...new Set(entries.map((entry) => nameOf(entry) ?? entry.digest))];
  const there = `; there is ${names.slice(0, 16).join(", ")}`;
  if (tag !== undefined) {
    const digest = tryParseDigest(tag);
    const found = entries.filter((entry) =>
      digest === undefined ? hasTag(entry, tag) : entry.digest === digest,
    );
    if (found.length > 0) return found;
    throw new DaemonError("not-found", `${place} has no image "${tag}"${there}`);
  }
  const tags = new Set(entries.map((entry) => nameOf(entry)));
  if (entries.length > 0 && tags.size === 1) return entries;
  if (entries.length === 0) throw new DaemonError("not-found", `${place} holds no image`);
  throw new DaemonError("invalid-argument", `${place} holds several images: name one${there}`);
}

function verified(descriptor: Descriptor, bytes: Uint8Array): RawManifest {
  verifyContent(bytes, descriptor);
  return { bytes, digest: descriptor.digest, mediaType: descriptor.mediaType };
}

/** An index of its own over the selected entries, as bytes, for the common search. */
function indexOver(entries: readonly Descriptor[]): RawManifest {
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: entries.map(({ mediaType, digest, size, platform }) => ({
        mediaType,
        digest,
        size,
        ...(platform === undefined
          ? {}
          : {
              platform: {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant,
              },
            }),
      })),
    }),
  );
  return { bytes, digest: digestOf(bytes), mediaType: MEDIA_TYPES.ociIndex };
}

export interface LayoutOptions {
  readonly description: string;
  /** A tag (`org.opencontainers.image.ref.name`) or a digest; undefined is the only image. */
  readonly tag: string | undefined;
}

export class LayoutSource implements ImageSource {
  readonly description: string;
  readonly #files: LayoutFiles;
  readonly #tag: string | undefined;

  constructor(files: LayoutFiles, options: LayoutOptions) {
    this.description = options.description;
    this.#files = files;
    this.#tag = options.tag;
  }

  async resolve(options: ResolveOptions): Promise<ResolvedImage> {
    try {
      const bytes = await this.#document("index.json", options);
      const index = parseImageIndex(bytes, { mediaType: MEDIA_TYPES.ociIndex });
      const entries = selectEntries(index.manifests, this.#tag, this.description);
      const read = (descriptor: Descriptor): Promise<Buffer> =>
        this.#document(blobName(descriptor.digest), options);
      const [only, ...others] = entries;
      const isOne = only !== undefined && others.length === 0;
      const top = isOne ? verified(only, await read(only)) : indexOver(entries);
      return await resolveImage(top, { manifest: read, config: read }, options);
    } catch (error) {
      throw withContext(error, `cannot resolve ${this.description}`);
    }
  }

  async open(
    digest: Digest,
    range: ByteRange | undefined,
    options: BlobOptions,
  ): Promise<AsyncIterable<Uint8Array>> {
    const region = await this.#region(blobName(digest), options);
    try {
      return await openRegion(region, digest, range, options);
    } catch (error) {
      throw missing(error, digest, this.description);
    }
  }

  async #region(name: string, options: { readonly signal: AbortSignal }): Promise<FileRegion> {
    const region = await this.#files(name, options);
    if (region !== undefined) return region;
    throw new DaemonError("not-found", `${this.description} has no ${name}`);
  }

  async #document(name: string, options: { readonly signal: AbortSignal }): Promise<Buffer> {
    try {
      return await readRegion(await this.#region(name, options), DOCUMENT_BYTES_MAX, options);
    } catch (error) {
      throw missing(error, name, this.description);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

function blobName(digest: Digest): string {
  return `blobs/sha256/${digestHex(digest)}`;
}

function missing(error: unknown, name: string, place: string): unknown {
  const errno = systemErrorName(error);
  if (errno !== "ENOENT" && errno !== "ENOTDIR") return error;
  return new DaemonError("not-found", `${place} has no ${name}`);
}
