/** Images whose documents are sound and say whatever a test wants of their layers. */
import { gzipSync } from "node:zlib";
import { digestOf, MEDIA_TYPES, type Digest } from "../../../src/oci/index.ts";
import type { FakeRegistry } from "../registry/fake-registry.ts";

export interface HostileLayer {
  /** What the registry has; undefined: nothing. */
  readonly blob: Uint8Array | undefined;
  /** What the manifest says of it. */
  readonly digest: Digest;
  readonly size: number;
  readonly mediaType: string;
  /** What the config says. */
  readonly diffId: Digest;
}

export interface HostileImage {
  readonly layers: readonly HostileLayer[];
  readonly config: Buffer;
  readonly manifest: Buffer;
}

export type LayerForm = "gzip" | "none" | "zstd";

const LAYER_TYPES = {
  gzip: MEDIA_TYPES.ociLayerGzip,
  none: MEDIA_TYPES.ociLayer,
  zstd: MEDIA_TYPES.ociLayerZstd,
} as const;

/** A layer whose documents are true, but for what `lies` say. */
export function layerOf(
  tar: Uint8Array,
  form: "gzip" | "none" = "gzip",
  lies: Partial<HostileLayer> = {},
): HostileLayer {
  return blobLayer(form === "gzip" ? gzipSync(tar) : tar, tar, form, lies);
}

/** The same with a blob that may not be the tar's. */
export function blobLayer(
  blob: Uint8Array,
  tar: Uint8Array | Digest,
  form: LayerForm = "gzip",
  lies: Partial<HostileLayer> = {},
): HostileLayer {
  return {
    blob,
    digest: digestOf(blob),
    size: blob.length,
    mediaType: LAYER_TYPES[form],
    diffId: typeof tar === "string" ? tar : digestOf(tar),
    ...lies,
  };
}

export function imageOf(layers: readonly HostileLayer[]): HostileImage {
  const config = json({
    architecture: "amd64",
    os: "linux",
    config: { Cmd: ["/bin/true"] },
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, digest: digestOf(config), size: config.length },
    layers: layers.map(({ digest, size, mediaType }) => ({ mediaType, digest, size })),
  });
  return { layers, config, manifest };
}

/** Puts it under `repository:1`; the answer is the reference. */
export function publish(registry: FakeRegistry, repository: string, image: HostileImage): string {
  registry.addManifest(repository, "1", image.manifest, MEDIA_TYPES.ociManifest);
  registry.addBlob(image.config);
  for (const { blob, digest } of image.layers) {
    if (blob !== undefined) registry.putBlob(digest, blob);
  }
  return `${registry.domain}/${repository}:1`;
}

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
