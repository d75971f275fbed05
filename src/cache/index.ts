/** The door of `cache`: blocks on disk, under one quota. */
export {
  fillLayers,
  type FillLayersOptions,
  type FillProgress,
  type FillResult,
} from "./background-fill.ts";
export { CacheFill } from "./cache-fill.ts";
export {
  nodeCacheFiles,
  readBootId,
  type CacheFile,
  type CacheFiles,
  type CacheFileStat,
  type PunchHole,
} from "./cache-files.ts";
export type { CachedLayer } from "./cached-layer.ts";
export type { DropRanges, QuotaCounts } from "./cache-quota.ts";
export {
  DEFAULT_DISK_CACHE_OPTIONS,
  DiskCache,
  type CachedLayerSummary,
  type CacheUsage,
  type DiskCacheDependencies,
  type DiskCacheOptions,
} from "./disk-cache.ts";
export { FillWriter, openFill, type FillPlan } from "./fill.ts";
