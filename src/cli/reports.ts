/**
 * The JSON answers of the image service to the command line (`JsonResult.json` of
 * proto/control.proto), and their parsers. The service fills these types; scripts read them through
 * `--json`, so a field may be added but never change its meaning. Unknown fields are kept: a newer
 * daemon may say more.
 */
import { z } from "zod";
import { DaemonError } from "../base/errors.ts";

const count = z.number().int().nonnegative();

const sourceSchema = z.looseObject({ blocks: count, bytes: count });

const statusSchema = z.looseObject({
  version: z.string(),
  pid: count,
  uptimeSeconds: z.number().nonnegative(),
  /** False while the start-up self-test runs. */
  ready: z.boolean(),
  /** `erofs`, `loop` or `fuse`. */
  mode: z.string(),
  /** Why that mode, in words. */
  modeReason: z.string(),
  images: z.array(
    z.looseObject({
      /** As the client gave it; empty when only the chain is known. */
      reference: z.string(),
      manifestDigest: z.string(),
      /** Of the whole image. */
      chainId: z.string(),
      layers: count,
      /** Unpacked. */
      imageBytes: count,
      /** Unpacked bytes that need no registry any more. */
      presentBytes: count,
      /** Whether any of its chains is mounted now. */
      mounted: z.boolean(),
    }),
  ),
  /** Since the image service started, by where a block came from: memory, disk, registry. */
  blocksBySource: z.record(z.string(), sourceSchema),
  /** Reads that wait for a block now. */
  waitingReads: count,
  cache: z.looseObject({ usedBytes: count, quotaBytes: count, layers: count }),
});

const cacheSchema = z.looseObject({
  usedBytes: count,
  quotaBytes: count,
  layers: z.array(
    z.looseObject({
      diffId: z.string(),
      /** Unpacked size of the whole layer. */
      tarBytes: count,
      /** Of it in the decoded store. */
      decodedBytes: count,
      /** In the store of blobs as fetched. */
      blobBytes: count,
      /** References of images that hold the layer. */
      images: z.array(z.string()),
    }),
  ),
});

const inspectSchema = z.looseObject({
  reference: z.string(),
  manifestDigest: z.string(),
  platform: z.string(),
  layers: z.array(
    z.looseObject({
      diffId: z.string(),
      chainId: z.string(),
      blobDigest: z.string(),
      mediaType: z.string(),
      blobBytes: count,
      tarBytes: count,
      /** Entries of the tar stream. */
      entries: count,
      /** Bytes of the layer map; of them EROFS metadata and gzip windows. */
      mapBytes: count,
      metadataBytes: count,
      windowBytes: count,
      blocks: count,
      /** `none`, `gzip`, `zstd`, `zstd-sequential`, joined by `+` where a layer mixes them. */
      codec: z.string(),
      /** Unpacked bytes in the cache. */
      presentBytes: count,
    }),
  ),
});

export type StatusReport = z.infer<typeof statusSchema>;
export type CacheReport = z.infer<typeof cacheSchema>;
export type InspectReport = z.infer<typeof inspectSchema>;

/** Throws `internal`: the daemon is another version, or at fault. */
export function parseReport<T>(schema: z.ZodType<T>, what: string, json: string): T {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new DaemonError("internal", `the daemon's ${what} is not JSON`, { cause: error });
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const where = issue?.path.join(".") ?? "";
  throw new DaemonError("internal", `the daemon's ${what}: ${where}: ${issue?.message ?? ""}`);
}

export function parseStatusReport(json: string): StatusReport {
  return parseReport(statusSchema, "status", json);
}

export function parseCacheReport(json: string): CacheReport {
  return parseReport(cacheSchema, "cache list", json);
}

export function parseInspectReport(json: string): InspectReport {
  return parseReport(inspectSchema, "description of the image", json);
}
