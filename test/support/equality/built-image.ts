/** A generated image as a registry would hold it. */
import { createHash } from "node:crypto";
import type { Image } from "./image.ts";
import { buildLayer, type BuiltLayer, type ZstdFrames } from "./tar-writer.ts";
import { validLayers } from "./valid.ts";

export interface BuiltJson {
  readonly bytes: Buffer;
  readonly digest: string;
}

export interface BuiltImage {
  readonly layers: readonly (BuiltLayer & { readonly mediaType: string })[];
  readonly isDocker: boolean;
  readonly config: BuiltJson;
  readonly manifest: BuiltJson;
}

const OCI = "application/vnd.oci.image";
const DOCKER = "application/vnd.docker";
const LAYER_TYPES = {
  docker: {
    none: `${DOCKER}.image.rootfs.diff.tar`,
    gzip: `${DOCKER}.image.rootfs.diff.tar.gzip`,
    zstd: `${DOCKER}.image.rootfs.diff.tar.zstd`,
  },
  oci: {
    none: `${OCI}.layer.v1.tar`,
    gzip: `${OCI}.layer.v1.tar+gzip`,
    zstd: `${OCI}.layer.v1.tar+zstd`,
  },
} as const;

function jsonOf(value: unknown): BuiltJson {
  const bytes = Buffer.from(JSON.stringify(value));
  return { bytes, digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}` };
}

export async function buildImage(image: Image, zstd: ZstdFrames): Promise<BuiltImage> {
  const { isDocker } = image;
  const types = LAYER_TYPES[isDocker ? "docker" : "oci"];
  const layers: BuiltImage["layers"][number][] = [];
  const valid = validLayers(image.layers.map(({ entries }) => entries));
  for (const [index, layer] of image.layers.entries()) {
    layers.push({
      ...(await buildLayer(layer, valid[index] ?? [], zstd)),
      mediaType: types[layer.codec],
    });
  }
  const config = jsonOf({
    architecture: "amd64",
    os: "linux",
    config: {},
    rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
  });
  const manifest = jsonOf({
    schemaVersion: 2,
    mediaType: isDocker ? `${DOCKER}.distribution.manifest.v2+json` : `${OCI}.manifest.v1+json`,
    config: {
      mediaType: isDocker ? `${DOCKER}.container.image.v1+json` : `${OCI}.config.v1+json`,
      digest: config.digest,
      size: config.bytes.length,
    },
    layers: layers.map(({ mediaType, digest, blob }) => ({ mediaType, digest, size: blob.length })),
  });
  return { layers, isDocker, config, manifest };
}
