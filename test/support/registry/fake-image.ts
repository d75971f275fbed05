/** Small images as documents and blobs, for registries, layouts and archives. */
import { createHash } from "node:crypto";
import { digestOf, MEDIA_TYPES } from "../../../src/oci/index.ts";
import type { Digest } from "../../../src/oci/index.ts";

export interface FakeImageOptions {
  readonly layers: readonly Uint8Array[];
  readonly platform?: {
    readonly os: string;
    readonly architecture: string;
    readonly variant?: string;
  };
  readonly layerMediaType?: string;
  readonly manifestMediaType?: string;
}

export interface FakeImage {
  readonly manifest: Buffer;
  readonly manifestDigest: Digest;
  readonly mediaType: string;
  readonly config: Buffer;
  readonly configDigest: Digest;
  readonly layerDigests: readonly Digest[];
  readonly blobs: ReadonlyMap<Digest, Uint8Array>;
  readonly platform: {
    readonly os: string;
    readonly architecture: string;
    readonly variant?: string;
  };
}

/** Layers are taken as uncompressed: the diff ID is the blob's digest. */
export function fakeImage(options: FakeImageOptions): FakeImage {
  const platform = options.platform ?? { os: "linux", architecture: "amd64" };
  const layerDigests = options.layers.map((bytes) => digestOf(bytes));
  const config = Buffer.from(
    JSON.stringify({
      ...platform,
      rootfs: { type: "layers", diff_ids: layerDigests },
      history: [],
    }),
  );
  const configDigest = digestOf(config);
  const mediaType = options.manifestMediaType ?? MEDIA_TYPES.ociManifest;
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType,
      config: { mediaType: MEDIA_TYPES.ociConfig, digest: configDigest, size: config.length },
      layers: options.layers.map((bytes, position) => ({
        mediaType: options.layerMediaType ?? MEDIA_TYPES.ociLayer,
        digest: layerDigests[position],
        size: bytes.length,
      })),
    }),
  );
  const blobs = new Map<Digest, Uint8Array>([[configDigest, config]]);
  for (const bytes of options.layers) blobs.set(digestOf(bytes), bytes);
  return {
    manifest,
    manifestDigest: digestOf(manifest),
    mediaType,
    config,
    configDigest,
    layerDigests,
    blobs,
    platform,
  };
}

export function fakeIndex(
  images: readonly FakeImage[],
  options: { readonly withPlatform?: boolean } = {},
): {
  readonly bytes: Buffer;
  readonly digest: Digest;
} {
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: images.map(({ manifest, manifestDigest, mediaType, platform }) => ({
        mediaType,
        digest: manifestDigest,
        size: manifest.length,
        ...(options.withPlatform === false ? {} : { platform }),
      })),
    }),
  );
  return { bytes, digest: digestOf(bytes) };
}

/** Bytes that do not compress and are the same in every run. */
export function fakeBytes(count: number, seed = "seed"): Buffer {
  const pieces: Buffer[] = [];
  let total = 0;
  for (let block = 0; total < count; block += 1) {
    const piece = createHash("sha512").update(`${seed} ${block}`).digest();
    pieces.push(piece);
    total += piece.length;
  }
  return Buffer.concat(pieces).subarray(0, count);
}
