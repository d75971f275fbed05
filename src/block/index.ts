/** The door of `block`: how layers are cut into blocks, and how missing blocks are had. */
export * from "./block-table.ts";
export { FETCH_PRIORITY, passError } from "./block-source.ts";
export type {
  BlobRun,
  BlockLayer,
  BlockSource,
  FetchPriority,
  SourceFetchOptions,
  SourceReadiness,
  StoredBlobs,
  StoredLayer,
} from "./block-source.ts";
export * from "./codecs/index.ts";
export {
  BlockResolver,
  DEFAULT_BLOCK_RESOLVER_OPTIONS,
  type BlockResolverOptions,
} from "./block-resolver.ts";
export type { BlobTap } from "./arriving-blob.ts";
export type { OpenBlobOptions } from "./blob-relay.ts";
export { RELAY_MEMORY_BYTES } from "./limits.ts";
export { hasSha256, sha256Of } from "./hashing.ts";
export { frameSpan, hasSequential, isSequential } from "./run-plan.ts";
