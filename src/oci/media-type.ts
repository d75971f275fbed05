/**
 * Media types of indexes, manifests, configs and layers.
 * Source: OCI image-spec v1.1, media-types.md; distribution, manifest-v2-2.md; ocicrypt, spec.md.
 */

export const MEDIA_TYPES = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
  ociLayerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  ociLayerZstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  dockerManifestList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerManifestV1: "application/vnd.docker.distribution.manifest.v1+json",
  dockerManifestV1Signed: "application/vnd.docker.distribution.manifest.v1+prettyjws",
} as const;

/** What a client asks for when it wants an image, in order of preference. */
export const MANIFEST_ACCEPT: readonly string[] = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.dockerManifestList,
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.dockerManifest,
];

export function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.ociIndex || mediaType === MEDIA_TYPES.dockerManifestList;
}

export function isManifestType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.ociManifest || mediaType === MEDIA_TYPES.dockerManifest;
}

export function isConfigType(mediaType: string): boolean {
  return mediaType === MEDIA_TYPES.ociConfig || mediaType === MEDIA_TYPES.dockerConfig;
}

/** Docker's schema 1: no config blob, so no diff IDs; nobody builds it any more. */
export function isSchema1Type(mediaType: string): boolean {
  return (
    mediaType === MEDIA_TYPES.dockerManifestV1 || mediaType === MEDIA_TYPES.dockerManifestV1Signed
  );
}

/** What the media type says; the layer's own first bytes decide in the end. */
export type LayerCompression = "none" | "gzip" | "zstd";

export type UnclaimableReason = "foreign" | "encrypted" | "unknown-media-type";

/** Whether a layer can be served lazily, and if not, why not. */
export type LayerKind =
  | { readonly isClaimable: true; readonly compression: LayerCompression }
  | { readonly isClaimable: false; readonly reason: UnclaimableReason };

const LAYER_PREFIXES: readonly { readonly prefix: string; readonly isForeign: boolean }[] = [
  { prefix: "application/vnd.oci.image.layer.v1.tar", isForeign: false },
  { prefix: "application/vnd.oci.image.layer.nondistributable.v1.tar", isForeign: true },
  { prefix: "application/vnd.docker.image.rootfs.diff.tar", isForeign: false },
  { prefix: "application/vnd.docker.image.rootfs.foreign.diff.tar", isForeign: true },
];

/** OCI writes `+gzip`, Docker `.gzip`; builders mix them up. */
const SUFFIXES: ReadonlyMap<string, LayerCompression> = new Map([
  ["", "none"],
  ["+gzip", "gzip"],
  [".gzip", "gzip"],
  ["+zstd", "zstd"],
  [".zstd", "zstd"],
]);

/** Media types may carry parameters (`; charset=…`), which mean nothing here. */
export function bareMediaType(mediaType: string): string {
  const semicolon = mediaType.indexOf(";");
  return (semicolon < 0 ? mediaType : mediaType.slice(0, semicolon)).trim().toLowerCase();
}

export function layerKindOf(mediaType: string): LayerKind {
  const bare = bareMediaType(mediaType);
  // ocicrypt adds the suffix whatever the compression below.
  if (bare.endsWith("+encrypted")) return { isClaimable: false, reason: "encrypted" };
  for (const { prefix, isForeign } of LAYER_PREFIXES) {
    if (!bare.startsWith(prefix)) continue;
    const compression = SUFFIXES.get(bare.slice(prefix.length));
    if (compression === undefined) break;
    return isForeign
      ? { isClaimable: false, reason: "foreign" }
      : { isClaimable: true, compression };
  }
  return { isClaimable: false, reason: "unknown-media-type" };
}
