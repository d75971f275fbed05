/** The door of `cache`: blocks on disk, under one quota. */
export { fillLayers, type FillProgress, type FillResult } from "./background-fill.ts";
export { CacheFill, type KeptBytes } from "./cache-fill.ts";
export {
  nodeCacheFiles,
  readBootId,
  type CacheFile,
  type CacheFiles,
  type CacheFileStat,
} from "./cache-files.ts";
export type { CachedLayer } from "./cached-layer.ts";
export type { DropRanges } from "./cache-quota.ts";
export { DiskCache, type DiskCacheOptions } from "./disk-cache.ts";
export { FillWriter, openFill, type LayerFillPlan } from "./fill.ts";
