/** OCI's nouns: digests, references, descriptors, manifests, configs, platforms. Pure. */
export {
  chainIds,
  digestFromHash,
  digestHex,
  digestOf,
  parseChainId,
  parseDiffId,
  parseDigest,
  tryParseDigest,
} from "./digest.ts";
export type { ChainId, DiffId, Digest } from "./digest.ts";
export { verifyContent } from "./descriptor.ts";
export type { Descriptor } from "./descriptor.ts";
export { planFetch } from "./fetch-plan.ts";
export type { FetchPlan } from "./fetch-plan.ts";
export { parseImageConfig } from "./image-config.ts";
export type { ImageConfig } from "./image-config.ts";
export { DOCUMENT_BYTES_MAX, INDEX_DEPTH_MAX, LAYERS_MAX } from "./limits.ts";
export { parseImageIndex, parseImageManifest, parseManifestDocument } from "./manifest.ts";
export type { ImageIndex, ImageManifest } from "./manifest.ts";
export {
  bareMediaType,
  isConfigType,
  layerKindOf,
  MANIFEST_ACCEPT,
  MEDIA_TYPES,
} from "./media-type.ts";
export type { LayerCompression } from "./media-type.ts";
export {
  choosePlatform,
  formatPlatform,
  linuxPlatformOf,
  matchesPlatform,
  parsePlatform,
  platformRank,
} from "./platform.ts";
export type { Platform } from "./platform.ts";
export {
  DEFAULT_DOMAIN,
  formatReference,
  isDomain,
  isRepository,
  isTag,
  parseReference,
  tryParseReference,
} from "./reference.ts";
export type { Reference } from "./reference.ts";
