/** The image that a user or a label names, wherever it is. */
import { stat } from "node:fs/promises";
import { isAbsolute, resolve as resolvePath } from "node:path";
import { DaemonError, systemErrorName } from "../base/errors.ts";
import type { ByteRange } from "../base/range-set.ts";
import { formatReference, isTag, parseReference, tryParseDigest } from "../oci/index.ts";
import type { Digest, Reference } from "../oci/index.ts";
import type { BlobOptions, ImageSource, ResolvedImage, ResolveOptions } from "./image-source.ts";
import type { RegistryClient } from "./client.ts";
import type { RegistryPool } from "./pool.ts";

export const LOCAL_TRANSPORTS = ["oci", "oci-archive", "docker-archive"] as const;
export type LocalTransport = (typeof LOCAL_TRANSPORTS)[number];

/** What a text means, before anything is opened. */
export type ImageLocation =
  | { readonly transport: "registry"; readonly reference: Reference }
  | {
      readonly transport: LocalTransport;
      /** After the prefix; a name may follow the path after a colon. */
      readonly text: string;
    };

/**
 * `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]` as skopeo writes them
 * (also `…@sha256:…`), `docker://REFERENCE` or a bare reference. Throws `invalid-argument`.
 */
export function parseImageLocation(text: string): ImageLocation {
  for (const transport of LOCAL_TRANSPORTS) {
    if (!text.startsWith(`${transport}:`)) continue;
    const rest = text.slice(transport.length + 1);
    // `oci:5` may be meant as name and tag, but skopeo and we read it as a path.
    if (rest === "" || rest.includes("\0")) {
      throw new DaemonError("invalid-argument", `"${text.slice(0, 100)}" names no path`);
    }
    return { transport, text: rest };
  }
  const bare = text.startsWith("docker://") ? text.slice("docker://".length) : text;
  return { transport: "registry", reference: parseReference(bare) };
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (systemErrorName(error) === "ENOENT" || systemErrorName(error) === "ENOTDIR") return false;
    throw new DaemonError("failed-precondition", `cannot look at ${path}`, { cause: error });
  }
}

/** A path may hold colons: the longest part that exists is the path, the rest is the name. */
async function splitPath(
  text: string,
  options: { readonly baseDir: string; readonly isName: (text: string) => boolean },
): Promise<{ readonly path: string; readonly name: string | undefined }> {
  const absolute = (path: string): string =>
    isAbsolute(path) ? path : resolvePath(options.baseDir, path);
  if (await exists(absolute(text))) return { path: absolute(text), name: undefined };
  const cuts = [...text.matchAll(/[:@]/g)].map(({ index }) => index).reverse();
  for (const cut of cuts.slice(0, 16)) {
    const name = text.slice(cut + 1);
    const path = absolute(text.slice(0, cut));
    if (cut > 0 && options.isName(name) && (await exists(path))) return { path, name };
  }
  throw new DaemonError("not-found", `there is no ${absolute(text)}`);
}

class RegistrySource implements ImageSource {
  readonly description: string;
  readonly #client: RegistryClient;
  readonly #reference: Reference;

  constructor(client: RegistryClient, reference: Reference) {
    this.description = formatReference(reference);
    this.#client = client;
    this.#reference = reference;
  }

  async resolve(options: ResolveOptions): Promise<ResolvedImage> {
    return this.#client.resolve(this.#reference, options);
  }

  async open(
    digest: Digest,
    range: ByteRange | undefined,
    options: BlobOptions,
  ): Promise<AsyncIterable<Uint8Array>> {
    return this.#client.openBlob(this.#reference.repository, digest, range, options);
  }

  reportCorrupt(digest: Digest): void {
    this.#client.reportCorrupt(this.#reference.repository, digest);
  }

  /** The connections are the pool's. */
  async [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/**
 * Opens nothing but, for local images, looks whether the path exists (`not-found`). `baseDir` is
 * what relative paths are relative to.
 */
export async function openImageSource(
  text: string,
  deps: { readonly registries: RegistryPool },
  options: { readonly baseDir: string },
): Promise<ImageSource> {
  const location = parseImageLocation(text);
  if (location.transport === "registry") {
    return new RegistrySource(
      deps.registries.client(location.reference.domain),
      location.reference,
    );
  }
  if (location.transport === "docker-archive") {
    const isName = (name: string): boolean => name !== "";
    const { path, name } = await splitPath(location.text, { ...options, isName });
    const { DockerArchiveSource } = await import("./archive/docker-archive.ts");
    return new DockerArchiveSource({ description: text, path, name });
  }
  const isName = (name: string): boolean => isTag(name) || isFullName(name);
  const { path, name } = await splitPath(location.text, { ...options, isName });
  const layout = await import("./archive/oci-layout.ts");
  const files = location.transport === "oci" ? layout.folderFiles(path) : layout.archiveFiles(path);
  return new layout.LayoutSource(files, { description: text, tag: name });
}

/** Tools write full references as a layout's tags too; or a digest picks the entry. */
function isFullName(name: string): boolean {
  return tryParseDigest(name) !== undefined || /^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$/.test(name);
}
