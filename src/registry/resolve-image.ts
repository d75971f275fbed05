/** From an image's first document to the manifest and config of one platform. */
import { throwIfAborted } from "../base/abort.ts";
import { DaemonError, withContext } from "../base/errors.ts";
import {
  choosePlatform,
  formatPlatform,
  formatReference,
  INDEX_DEPTH_MAX,
  isConfigType,
  matchesPlatform,
  parseImageConfig,
  parseManifestDocument,
  planFetch,
  verifyContent,
} from "../oci/index.ts";
import type {
  Descriptor,
  Digest,
  ImageIndex,
  ImageManifest,
  Platform,
  Reference,
} from "../oci/index.ts";
import type { ResolvedImage, ResolveOptions } from "./image-source.ts";
import { PLATFORM_GUESSES_MAX } from "./limits.ts";

/** An index or manifest as it came, its digest computed from the bytes. */
export interface RawManifest {
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  /** As the server or the descriptor called it. */
  readonly mediaType: string | undefined;
}

/** How one kind of place hands out documents; what it returns is verified here. */
export interface DocumentReader {
  manifest(descriptor: Descriptor, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
  config(descriptor: Descriptor, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
}

interface Search {
  readonly reader: DocumentReader;
  readonly options: ResolveOptions;
  /** Platforms seen and passed over, for the message. */
  readonly seen: Set<string>;
  guesses: number;
}

/** Artifacts are pulled with the same API; the octet stream is what old Docker versions pushed. */
function checkIsImage(manifest: ImageManifest): void {
  const { mediaType } = manifest.config;
  if (isConfigType(mediaType) || mediaType === "application/octet-stream") return;
  throw new DaemonError(
    "failed-precondition",
    `is not a container image but ${manifest.artifactType ?? mediaType}`,
  );
}

/** Undefined when its config says another platform. */
async function finish(
  raw: RawManifest,
  manifest: ImageManifest,
  search: Search,
  isPlatformKnown: boolean,
): Promise<ResolvedImage | undefined> {
  checkIsImage(manifest);
  const configBytes = await search.reader.config(manifest.config, search.options);
  verifyContent(configBytes, manifest.config);
  const config = parseImageConfig(configBytes);
  const { platform } = config;
  const isMatch =
    isPlatformKnown || platform === undefined || matchesPlatform(search.options.platform, platform);
  if (!isMatch) {
    search.seen.add(formatPlatform(platform));
    return undefined;
  }
  return {
    manifestDigest: raw.digest,
    manifestBytes: raw.bytes,
    manifest,
    configBytes,
    config,
    plan: planFetch(manifest, config),
  };
}

async function visit(
  raw: RawManifest,
  search: Search,
  place: { readonly depth: number; readonly isPlatformKnown: boolean },
): Promise<ResolvedImage | undefined> {
  throwIfAborted(search.options.signal);
  const document = parseManifestDocument(raw.bytes, { mediaType: raw.mediaType });
  if (document.kind === "manifest") {
    return finish(raw, document.manifest, search, place.isPlatformKnown);
  }
  if (place.depth >= INDEX_DEPTH_MAX) {
    throw new DaemonError("data-loss", `indexes nested more than ${INDEX_DEPTH_MAX} deep`);
  }
  for (const descriptor of candidatesOf(document.index, search)) {
    const isPlatformKnown = descriptor.platform !== undefined;
    if (!isPlatformKnown && ++search.guesses > PLATFORM_GUESSES_MAX) break;
    const bytes = await search.reader.manifest(descriptor, search.options);
    verifyContent(bytes, descriptor);
    const below: RawManifest = {
      bytes,
      digest: descriptor.digest,
      mediaType: descriptor.mediaType,
    };
    const found = await visit(below, search, { depth: place.depth + 1, isPlatformKnown });
    if (found !== undefined) return found;
  }
  return undefined;
}

function candidatesOf(index: ImageIndex, search: Search): readonly Descriptor[] {
  for (const { platform } of index.manifests) {
    // Attestations stand as unknown/unknown.
    if (platform !== undefined && platform.os !== "unknown")
      search.seen.add(formatPlatform(platform));
  }
  return choosePlatform(
    search.options.platform,
    index.manifests.map((value) => ({ platform: value.platform, value })),
  );
}

function notFound(wanted: Platform, seen: ReadonlySet<string>): DaemonError {
  const others = [...seen].slice(0, 16).join(", ");
  const hint = others === "" ? "" : `; there is ${others}`;
  return new DaemonError("not-found", `no image for ${formatPlatform(wanted)}${hint}`);
}

/**
 * Throws `not-found` when no platform fits, `data-loss` for malformed or wrong documents,
 * `failed-precondition` for what is no image, and whatever the reader throws.
 */
export async function resolveImage(
  top: RawManifest,
  reader: DocumentReader,
  options: ResolveOptions,
): Promise<ResolvedImage> {
  const search: Search = { reader, options, seen: new Set(), guesses: 0 };
  const found = await visit(top, search, { depth: 0, isPlatformKnown: false });
  if (found === undefined) throw notFound(options.platform, search.seen);
  return found;
}

/** The documents of one repository, wherever they come from. */
export interface RepositoryDocuments {
  /** `name` is a tag or a digest. */
  manifest(name: string, options: { readonly signal: AbortSignal }): Promise<RawManifest>;
  config(descriptor: Descriptor, options: { readonly signal: AbortSignal }): Promise<Uint8Array>;
}

/** As `resolveImage`, from a reference on. */
export async function resolveReference(
  reference: Reference,
  documents: RepositoryDocuments,
  options: ResolveOptions,
): Promise<ResolvedImage> {
  try {
    const name = reference.digest ?? reference.tag ?? "latest";
    const reader: DocumentReader = {
      manifest: async ({ digest }) => (await documents.manifest(digest, options)).bytes,
      config: async (descriptor) => documents.config(descriptor, options),
    };
    return await resolveImage(await documents.manifest(name, options), reader, options);
  } catch (error) {
    throw withContext(error, `cannot resolve ${formatReference(reference)}`);
  }
}
