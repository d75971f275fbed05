/**
 * Images from registries and from local layouts and archives: manifests by reference, blobs by
 * digest and range. undici and tar-stream are loaded at the first request that needs them.
 */
export { RegistryClient } from "./client.ts";
export { anonymousCredentials } from "./credentials.ts";
export type { CredentialSource } from "./credentials.ts";
export type { Credential } from "./docker-config.ts";
export type {
  BlobOptions,
  BlobRangeReader,
  FetchPriority,
  ImageSource,
  ResolvedImage,
  ResolveOptions,
} from "./image-source.ts";
export { openImageSource, parseImageLocation } from "./open-image-source.ts";
export type { ImageLocation, LocalTransport } from "./open-image-source.ts";
export { DEFAULT_REGISTRY_OPTIONS, RegistryPool } from "./pool.ts";
export type { RegistryOptions, RegistryPoolDeps } from "./pool.ts";
export type { ProxyOptions } from "./proxy.ts";
