/** What status, cache and inspect answer; the command line's parsers are src/cli/reports.ts. */
import { chainIds, digestHex } from "../oci/index.ts";
import type { DiffId } from "../oci/index.ts";
import type { ImageService } from "./image-service.ts";
import type { ImageRecord, LayerRecord } from "./image-store.ts";

export interface ServiceFacts {
  readonly version: string;
  readonly startedMs: number;
  readonly modeReason: string;
  readonly platform: string;
}

type PresentBytes = (layer: LayerRecord) => number;

/** Unpacked bytes in the cache, by layer, open or not. */
function presentBytes(service: ImageService): PresentBytes {
  const byId = new Map(service.parts.cache.list().map((one) => [one.layerId, one.decodedBytes]));
  return ({ diffId }) => byId.get(digestHex(diffId)) ?? 0;
}

export async function statusReport(service: ImageService, facts: ServiceFacts): Promise<object> {
  const { parts } = service;
  const mounted = new Set(parts.rootfs.chains.map((chain) => chain.chainId));
  const present = presentBytes(service);
  const counts = parts.resolver.stats();
  const usage = parts.cache.usage();
  const keeper = await keeperStats(service);
  const images = await Promise.all(
    parts.images.images.map(async (image) => {
      const ids = chainIds(image.layers.map((layer) => layer.diffId));
      return {
        reference: image.reference,
        manifestDigest: image.manifestDigest,
        chainId: ids.at(-1) ?? "",
        layers: image.layers.length,
        imageBytes: await tarBytes(service, image),
        presentBytes: image.layers.reduce((sum, layer) => sum + present(layer), 0),
        mounted: ids.some((id) => mounted.has(digestHex(id))),
      };
    }),
  );
  return {
    version: facts.version,
    pid: process.pid,
    uptimeSeconds: Math.round((parts.clock.nowMs() - facts.startedMs) / 1000),
    ready: true,
    mode: parts.rootfs.mode,
    modeReason: facts.modeReason,
    images,
    blocksBySource: blocksBySource(counts, keeper),
    waitingReads: keeper.waiting,
    cache: {
      usedBytes: usage.usedBytes,
      quotaBytes: usage.quotaBytes,
      layers: parts.cache.list().length,
    },
    keeper,
  };
}

type ReadCounts = ReturnType<ImageService["parts"]["resolver"]["stats"]>;

/** `disk` are reads that the keeper answered alone; the others are blocks with their blob bytes. */
export function blocksBySource(
  counts: ReadCounts,
  keeper: { readonly readsPresent: number },
): Record<string, { blocks: number; bytes: number; requests: number }> {
  const sources = Object.entries(counts.sources).map(
    ([name, { blocks, blobBytes, requests }]) =>
      [name, { blocks, bytes: blobBytes, requests }] as const,
  );
  return {
    ...Object.fromEntries(sources),
    disk: { blocks: counts.presentBlocks + keeper.readsPresent, bytes: 0, requests: 0 },
  };
}

async function keeperStats(service: ImageService): Promise<{
  readonly reads: number;
  readonly readsPresent: number;
  readonly readsMissed: number;
  readonly bytes: number;
  readonly waiting: number;
}> {
  const none = { reads: 0, readsPresent: 0, readsMissed: 0, bytes: 0, waiting: 0 };
  if (!service.parts.keeper.isConnected) return none;
  try {
    return await service.parts.keeper.stats({ signal: AbortSignal.timeout(2000) });
  } catch {
    return none; // it is away; the rest of the status is still wanted
  }
}

async function tarBytes(service: ImageService, image: ImageRecord): Promise<number> {
  let sum = 0;
  for (const { diffId } of image.layers) sum += await tarBytesOf(service, diffId);
  return sum;
}

async function tarBytesOf(service: ImageService, diffId: DiffId): Promise<number> {
  try {
    return (await service.parts.layers.openLayer(diffId)).map.info.tarBytes;
  } catch {
    return 0; // its map is damaged or gone, which the log says
  }
}

export async function cacheReport(service: ImageService): Promise<object> {
  const { cache, images } = service.parts;
  const usage = cache.usage();
  const byLayer = new Map<string, { diffId: DiffId; images: string[] }>();
  for (const image of images.images) {
    for (const { diffId } of image.layers) {
      const entry = byLayer.get(digestHex(diffId)) ?? { diffId, images: [] };
      entry.images.push(image.reference);
      byLayer.set(digestHex(diffId), entry);
    }
  }
  const layers = await Promise.all(
    cache.list().map(async (layer) => {
      const known = byLayer.get(layer.layerId);
      return {
        diffId: `sha256:${layer.layerId}`,
        tarBytes: known === undefined ? 0 : await tarBytesOf(service, known.diffId),
        decodedBytes: layer.decodedBytes,
        blobBytes: layer.blobBytes,
        images: known?.images ?? [],
      };
    }),
  );
  return { usedBytes: usage.usedBytes, quotaBytes: usage.quotaBytes, layers };
}

export async function inspectReport(
  service: ImageService,
  image: ImageRecord,
  facts: ServiceFacts,
): Promise<object> {
  const present = presentBytes(service);
  const ids = chainIds(image.layers.map((layer) => layer.diffId));
  const layers = await Promise.all(
    image.layers.map(async (layer, index) => {
      const { map } = await service.parts.layers.openLayer(layer.diffId);
      return {
        diffId: layer.diffId,
        chainId: ids[index] ?? "",
        blobDigest: layer.blobDigest,
        mediaType: layer.mediaType,
        blobBytes: layer.blobBytes,
        tarBytes: map.info.tarBytes,
        entries: map.info.entries,
        mapBytes: map.sizes.fileBytes,
        metadataBytes: map.sizes.metadataBytes,
        windowBytes: map.sizes.windowsBytes,
        blocks: map.blockTable.count,
        codec: codecsOf(map.blockTable),
        presentBytes: present(layer),
      };
    }),
  );
  const { reference, manifestDigest } = image;
  return { reference, manifestDigest, platform: facts.platform, layers };
}

function codecsOf(table: { readonly count: number; at(index: number): { codec: string } }): string {
  const codecs = new Set<string>();
  for (let index = 0; index < table.count; index += 1) codecs.add(table.at(index).codec);
  return [...codecs].sort().join("+");
}
