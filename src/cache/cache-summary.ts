/** What the cache holds, layer by layer, for status. */
import type { CachedLayer } from "./cached-layer.ts";
import type { DormantFile } from "./cache-quota.ts";

export interface CachedLayerSummary {
  readonly layerId: string;
  /** Opened since the start; others are counted as the start found them. */
  readonly isOpen: boolean;
  readonly decodedBlocks: number;
  readonly decodedBytes: number;
  readonly blobBlocks: number;
  readonly blobBytes: number;
}

/** Of open layers as they are, of others as the start found them; by ID. */
export function summarize(
  open: ReadonlyMap<string, CachedLayer>,
  dormant: Iterable<DormantFile>,
): CachedLayerSummary[] {
  const byId = new Map<string, CachedLayerSummary>();
  for (const [layerId, layer] of open) {
    const decoded = layer.usage();
    const blobs = layer.blobs?.usage() ?? { blocks: 0, bytes: 0 };
    byId.set(layerId, {
      layerId,
      isOpen: true,
      decodedBlocks: decoded.blocks,
      decodedBytes: decoded.bytes,
      blobBlocks: blobs.blocks,
      blobBytes: blobs.bytes,
    });
  }
  for (const { layerId, kind, blocks, bytes } of dormant) {
    const empty = { decodedBlocks: 0, decodedBytes: 0, blobBlocks: 0, blobBytes: 0 };
    const old = byId.get(layerId) ?? { layerId, isOpen: false, ...empty };
    const added =
      kind === "decoded"
        ? { decodedBlocks: blocks, decodedBytes: bytes }
        : { blobBlocks: blocks, blobBytes: bytes };
    byId.set(layerId, { ...old, ...added });
  }
  return [...byId.values()].sort((a, b) => (a.layerId < b.layerId ? -1 : 1));
}
