/**
 * From what a client gave (a reference, a digest, perhaps the documents themselves) to an image
 * record: which layers, and where they can be had.
 */
import { DaemonError, errorCode, errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import {
  digestOf,
  linuxPlatformOf,
  parseImageConfig,
  parseImageManifest,
  parsePlatform,
  planFetch,
} from "../oci/index.ts";
import type { Digest, FetchPlan, Platform } from "../oci/index.ts";
import { parseImageLocation } from "../registry/index.ts";
import type { ResolvedImage, ResolveOptions } from "../registry/index.ts";
import type { EnsureImageRequest } from "./ensure-image.ts";
import type { ImageSources } from "./image-sources.ts";
import type { ImageRecord, ImageStore } from "./image-store.ts";

interface SignalOption {
  readonly signal: AbortSignal;
}

/** The image of one place: `host[:port]/repository` with a tag or digest, or an archive. */
export type ResolvePlace = (place: string, options: ResolveOptions) => Promise<ResolvedImage>;

/** Each place itself is asked. */
export function resolveAtPlace(sources: Pick<ImageSources, "get">): ResolvePlace {
  return async (place, options) => (await sources.get(place)).resolve(options);
}

export type StoredImages = Pick<ImageStore, "image" | "images">;

export class StoredImageResolver {
  readonly #store: StoredImages;
  readonly #resolvePlace: ResolvePlace;
  readonly #log: Logger;

  constructor(store: StoredImages, resolvePlace: ResolvePlace, log: Logger) {
    this.#store = store;
    this.#resolvePlace = resolvePlace;
    this.#log = log;
  }

  async resolve(request: EnsureImageRequest, options: SignalOption): Promise<ImageRecord> {
    const places = placesOf(request);
    const known = this.#known(request);
    if (known !== undefined) return { ...known, sources: [...places, ...known.sources] };
    if (request.manifest !== undefined && request.config !== undefined) {
      return recordOf(request, places, request.manifest, request.config);
    }
    const platform = platformOf(request.platform);
    let failure: unknown;
    for (const place of placeTexts(request)) {
      try {
        const image = await this.#resolvePlace(place.text, { platform, ...options });
        checkDigest(image.manifestDigest, request.manifestDigest);
        return recordOf(
          request,
          [place.source, ...places.filter((other) => other !== place.source)],
          image.manifestBytes,
          image.configBytes,
        );
      } catch (error) {
        if (options.signal.aborted) throw error;
        failure ??= error;
        this.#log.warn("image-not-resolved", { place: place.text, err: error });
      }
    }
    return this.#fallBack(request, failure);
  }

  #known(request: EnsureImageRequest): ImageRecord | undefined {
    if (request.manifestDigest === undefined) return undefined;
    return this.#store.image(request.manifestDigest);
  }

  /** A registry that is away does not make a known tag unknown. */
  #fallBack(request: EnsureImageRequest, failure: unknown): ImageRecord {
    const isAway = ["unavailable", "deadline-exceeded"].includes(errorCode(failure));
    const known = this.#store.images
      .filter((image) => image.reference === request.reference)
      .at(-1);
    if (!isAway || known === undefined) throw failure;
    this.#log.warn("image-from-store", {
      reference: request.reference,
      manifest: known.manifestDigest,
      reason: errorMessage(failure),
    });
    return known;
  }
}

/** `host[:port]/repository`, or the archive as it was given. */
export function sourceOf(reference: string): string {
  const location = parseImageLocation(reference);
  if (location.transport !== "registry") return reference;
  return `${location.reference.domain}/${location.reference.repository}`;
}

export function platformOf(text: string | undefined): Platform {
  return text === undefined ? linuxPlatformOf(process.arch) : parsePlatform(text);
}

function placesOf(request: EnsureImageRequest): string[] {
  return [...new Set([sourceOf(request.reference), ...request.alternatives.map(sourceOf)])];
}

/** What to ask each place for: the digest where it is known, else what the reference names. */
function placeTexts(request: EnsureImageRequest): { text: string; source: string }[] {
  const { manifestDigest, reference } = request;
  const isArchive = parseImageLocation(reference).transport !== "registry";
  if (manifestDigest === undefined || isArchive) {
    return [{ text: reference, source: sourceOf(reference) }];
  }
  return placesOf(request).map((source) => ({ text: `${source}@${manifestDigest}`, source }));
}

function recordOf(
  request: EnsureImageRequest,
  sources: readonly string[],
  manifestBytes: Uint8Array,
  configBytes: Uint8Array,
): ImageRecord {
  const manifestDigest = digestOf(manifestBytes);
  checkDigest(manifestDigest, request.manifestDigest);
  const manifest = parseImageManifest(manifestBytes);
  if (digestOf(configBytes) !== manifest.config.digest) {
    throw new DaemonError("data-loss", `config of ${manifestDigest} has another digest`);
  }
  const plan = planFetch(manifest, parseImageConfig(configBytes));
  checkClaimable(plan, manifestDigest);
  return {
    manifestDigest,
    reference: request.reference,
    sources,
    manifest: Buffer.from(manifestBytes).toString("utf8"),
    config: Buffer.from(configBytes).toString("utf8"),
    layers: plan.layers.map(({ descriptor, diffId }) => ({
      diffId,
      blobDigest: descriptor.digest,
      blobBytes: descriptor.size,
      mediaType: descriptor.mediaType,
    })),
  };
}

function checkDigest(actual: Digest, expected: Digest | undefined): void {
  if (expected === undefined || actual === expected) return;
  throw new DaemonError("data-loss", `manifest has digest ${actual}, not ${expected}`);
}

function checkClaimable(plan: FetchPlan, manifest: Digest): void {
  if (plan.layers.length === 0) {
    throw new DaemonError("unimplemented", `image ${manifest} has no layers`);
  }
  const [obstacle] = plan.obstacles;
  if (obstacle === undefined) return;
  throw new DaemonError(
    "unimplemented",
    `layer ${obstacle.position} of image ${manifest} cannot be lazy: ${obstacle.reason}`,
  );
}
