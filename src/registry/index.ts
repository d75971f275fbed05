/**
 * Images from registries and from local layouts and archives: manifests by reference, blobs by
 * digest and range. undici and tar-stream are loaded at the first request that needs them.
 */
export type { CredentialSource } from "./credentials.ts";
export type {
  BlobOptions,
  FetchPriority,
  ImageSource,
  ResolvedImage,
  ResolveOptions,
} from "./image-source.ts";
export { isLocalOnly, splitHostPort } from "./network-address.ts";
export { openImageSource, parseImageLocation } from "./open-image-source.ts";
export { DEFAULT_REGISTRY_OPTIONS, RegistryPool } from "./pool.ts";
export type { RegistryOptions } from "./pool.ts";
export { resolveReference } from "./resolve-image.ts";
export type { RawManifest } from "./resolve-image.ts";
