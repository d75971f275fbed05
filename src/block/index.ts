/** The door of `block`: how layers are cut into blocks, and how missing blocks are had. */
export * from "./block-table.ts";
export * from "./block-source.ts";
export * from "./codecs/index.ts";
export {
  BlockResolver,
  DEFAULT_BLOCK_RESOLVER_OPTIONS,
  type BlockResolverDependencies,
  type BlockResolverOptions,
  type EnsureOptions,
  type EnsureResult,
  type PrefetchResult,
} from "./block-resolver.ts";
export type { DecodeBlock } from "./finish-block.ts";
export type { DecodeFrame } from "./run-executor.ts";
export type { ReadCounts, SourceCounts } from "./read-counters.ts";
export { hasSha256, sha256Of } from "./hashing.ts";
export { frameSpan, isSequential } from "./run-plan.ts";
