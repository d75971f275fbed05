/** Brings whole layers into the cache, below every reader and under a byte rate. */
import { throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import { FETCH_PRIORITY } from "../block/index.ts";
import type { BlockResolver } from "../block/index.ts";
import type { CachedLayer } from "./cached-layer.ts";
import type { DiskCache } from "./disk-cache.ts";
import { FILL_WINDOW_BYTES } from "./limits.ts";
import { TokenBucket } from "./token-bucket.ts";

export interface FillProgress {
  /** Tar bytes that are in the cache, of all layers. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface FillLayersOptions {
  /** Blob bytes a second; 0: no limit. */
  readonly rateBytesPerSecond: number;
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: FillProgress) => void;
  /** Whether blocks of other images may be evicted for these. */
  readonly mayEvict: boolean;
  /** How long one window of blocks may take; 0: as long as the source needs. */
  readonly limitMs?: number;
}

export interface FillResult extends FillProgress {
  /** False: the cache has no room for the rest. */
  readonly isComplete: boolean;
}

/**
 * Fills layers that the resolver reads, one after another. Throws what the sources throw
 * (`unavailable` only with `limitMs`), and `resource-exhausted` where the layers cannot fit the
 * quota at all and `mayEvict` is set.
 */
export async function fillLayers(
  dependencies: {
    readonly clock: Clock;
    readonly cache: DiskCache;
    readonly resolver: BlockResolver;
  },
  layers: readonly CachedLayer[],
  options: FillLayersOptions,
): Promise<FillResult> {
  const { cache, resolver } = dependencies;
  const bucket = new TokenBucket(dependencies.clock, options.rateBytesPerSecond);
  const totalBytes = layers.reduce((sum, { table }) => sum + table.tarBytes, 0);
  const { quotaBytes } = cache.usage();
  if (options.mayEvict && totalBytes > quotaBytes) {
    const text = `${totalBytes} bytes do not fit the cache's quota of ${quotaBytes} bytes`;
    throw new DaemonError("resource-exhausted", text);
  }
  let doneBytes = 0;
  for (const layer of layers) {
    for (const window of windowsOf(layer)) {
      throwIfAborted(options.signal);
      const missing = missingIn(layer, window);
      const tarBytes = tarBytesOf(layer, window);
      if (missing.blobBytes > 0) {
        const isRoom = options.mayEvict || cache.usage().roomBytes >= missing.tarBytes;
        if (!isRoom) return { doneBytes, totalBytes, isComplete: false };
        await bucket.take(missing.blobBytes, options);
        const { passedBlocks } = await resolver.fill(layer.id, window, {
          priority: FETCH_PRIORITY.fill,
          signal: options.signal,
          ...(options.limitMs === undefined ? {} : { limitMs: options.limitMs }),
        });
        if (passedBlocks > 0) return { doneBytes, totalBytes, isComplete: false };
      }
      doneBytes += tarBytes;
      options.onProgress?.({ doneBytes, totalBytes });
    }
  }
  return { doneBytes, totalBytes, isComplete: true };
}

interface Window {
  readonly first: number;
  readonly last: number;
}

/** Runs of blocks of about one request each; a zstd-sequential frame's blocks share one range. */
function* windowsOf({ table }: CachedLayer): Generator<Window> {
  let first = 0;
  let bytes = 0;
  let lastOffset = -1;
  for (let index = 0; index < table.count; index += 1) {
    const { blobOffset, blobLength } = table.at(index);
    const added = blobOffset === lastOffset ? 0 : blobLength;
    const isFull = bytes + added > FILL_WINDOW_BYTES || index - first >= WINDOW_BLOCKS_MAX;
    if (isFull && index > first) {
      yield { first, last: index - 1 };
      first = index;
      bytes = 0;
    }
    bytes += added;
    lastOffset = blobOffset;
  }
  if (table.count > first) yield { first, last: table.count - 1 };
}

/** Blocks in one window of the fill. */
const WINDOW_BLOCKS_MAX = 1024;

function missingIn(
  layer: CachedLayer,
  { first, last }: Window,
): {
  blobBytes: number;
  tarBytes: number;
} {
  let blobBytes = 0;
  let tarBytes = 0;
  let lastOffset = -1;
  for (let index = first; index <= last; index += 1) {
    if (layer.has(index)) continue;
    const block = layer.table.at(index);
    if (block.blobOffset !== lastOffset) blobBytes += block.blobLength;
    lastOffset = block.blobOffset;
    tarBytes += layer.file.costBytes(index);
  }
  return { blobBytes, tarBytes };
}

function tarBytesOf({ table }: CachedLayer, { first, last }: Window): number {
  const end = last + 1 < table.count ? table.tarOffsetOf(last + 1) : table.tarBytes;
  return end - table.tarOffsetOf(first);
}
