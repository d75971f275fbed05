/** A filling pass as the parent process sees it: room reserved, files to adopt. */
import { RangeSet } from "../base/range-set.ts";
import type { BlockTable } from "../block/index.ts";
import { isPlain, isSequential } from "../block/index.ts";
import type { CachedLayer } from "./cached-layer.ts";
import type { CacheFiles } from "./cache-files.ts";
import type { CacheQuota } from "./cache-quota.ts";
import type { FillPlan, LayerFillPlan } from "./fill.ts";
import {
  ALLOCATION_BYTES,
  BLOB_FILL_QUOTA_SHARE,
  FILL_QUOTA_SHARE,
  FILL_RATIO_ESTIMATE,
  FILL_WRITE_BYTES,
} from "./limits.ts";

export interface FillEstimate {
  readonly blobBytes: number;
  readonly isCompressed: boolean;
}

/** What a pass has written, from the start of each stream. */
export interface KeptBytes {
  /** Of the tar stream. */
  readonly keptBytes: number;
  /** Of the blob; none unless told. */
  readonly keptBlobBytes?: number;
}

/** Disposing it gives up what was not adopted. */
export class CacheFill implements AsyncDisposable {
  /** For `openFill` in the child process. */
  readonly plan: LayerFillPlan;
  readonly #quota: CacheQuota;
  readonly #files: CacheFiles;
  #isReserved = true;
  #blobReserved: number;

  private constructor(quota: CacheQuota, files: CacheFiles, plan: LayerFillPlan) {
    this.#quota = quota;
    this.#files = files;
    this.plan = plan;
    this.#blobReserved = plan.blob?.bytesMax ?? 0;
  }

  /**
   * Reserves an estimate of the layer's tar bytes: what is free, or else at most a share of the
   * quota for all passes together, so that a pull does not push out what containers use. Of a
   * layer that does not fit, the first part is kept. Room for the blob is reserved apart, and may
   * be refused alone; an uncompressed layer's is its tar.
   */
  static async begin(
    quota: CacheQuota,
    files: CacheFiles,
    layer: {
      readonly path: string;
      /** Undefined: blobs are not kept. */
      readonly blobPath: string | undefined;
      readonly estimate: FillEstimate;
    },
  ): Promise<CacheFill | undefined> {
    const { blobBytes, isCompressed } = layer.estimate;
    const wanted = blobBytes * (isCompressed ? FILL_RATIO_ESTIMATE : 1) + FILL_WRITE_BYTES;
    const share = quota.quotaBytes * FILL_QUOTA_SHARE - quota.used.fills;
    const bytesMax = Math.floor(Math.min(wanted, Math.max(quota.roomBytes, share)));
    if (bytesMax < FILL_WRITE_BYTES) return undefined;
    if (!(await quota.reserve("fills", bytesMax))) return undefined;
    const { path, blobPath } = layer;
    const blob =
      blobPath === undefined || !isCompressed
        ? undefined
        : await reserveBlob(quota, blobPath, blobBytes);
    return new CacheFill(quota, files, { path, bytesMax, blob });
  }

  /** Takes room for blob blocks beyond what was reserved for the blob's bytes. */
  async growBlob(bytes: number): Promise<boolean> {
    if (!(await this.#quota.reserve("blobFills", bytes))) return false;
    this.#blobReserved += bytes;
    return true;
  }

  get blobReservedBytes(): number {
    return this.#blobReserved;
  }

  /** Gives the reservation for decoded bytes back, once. */
  release(): void {
    if (this.#isReserved) this.#quota.release("fills", this.plan.bytesMax);
    this.#isReserved = false;
  }

  /** Gives the reservation for blob bytes back, once. */
  releaseBlob(): void {
    this.#quota.release("blobFills", this.#blobReserved);
    this.#blobReserved = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    this.releaseBlob();
    await this.#files.remove(this.plan.path);
    if (this.plan.blob !== undefined) await this.#files.remove(this.plan.blob.path);
  }
}

async function reserveBlob(
  quota: CacheQuota,
  path: string,
  blobBytes: number,
): Promise<FillPlan | undefined> {
  const { roomBytes, used } = quota;
  const share = quota.quotaBytes * BLOB_FILL_QUOTA_SHARE - used.blobFills;
  const wanted = Math.ceil(blobBytes / ALLOCATION_BYTES) * ALLOCATION_BYTES;
  // Nothing but other blob bytes is pushed out.
  const attainable = Math.max(roomBytes, Math.min(share, roomBytes + used.blobs));
  const bytesMax = Math.floor(Math.min(wanted, attainable));
  // A first part of a blob is worth little when it is less than a block.
  if (bytesMax <= 0 || (bytesMax < wanted && bytesMax < FILL_WRITE_BYTES)) return undefined;
  return (await quota.reserve("blobFills", bytesMax)) ? { path, bytesMax } : undefined;
}

/** What a pass has written. */
export interface Filled extends KeptBytes {
  readonly fill: CacheFill;
  readonly table: BlockTable;
}

/** Renames the file into the decoded store; the result is the blocks that it holds. */
export async function moveFill(
  files: CacheFiles,
  { fill, table, keptBytes }: Filled,
  decodedPath: string,
): Promise<readonly number[]> {
  const { path } = fill.plan;
  await using file = await files.open(path);
  const { sizeBytes } = await file.stat();
  const blocks = wholeBlocks(table, Math.min(sizeBytes, keptBytes));
  const end = blocks === table.count ? table.tarBytes : table.tarOffsetOf(blocks);
  await file.truncate(end);
  await file.truncate(Math.ceil(table.tarBytes / 512) * 512);
  await files.rename(path, decodedPath);
  return Array.from({ length: blocks }, (_, index) => index);
}

/**
 * Renames the file into the blob store, with holes where no block is kept; the result is the
 * blocks that it holds.
 */
export async function moveBlobFill(
  files: CacheFiles,
  filled: Filled,
  blobPath: string,
): Promise<readonly number[]> {
  const { fill, table } = filled;
  const plan = fill.plan.blob;
  if (plan === undefined) return [];
  await using file = await files.open(plan.path);
  const { sizeBytes } = await file.stat();
  const blocks = await affordable(
    fill,
    table,
    blobBlocks(table, Math.min(sizeBytes, filled.keptBlobBytes ?? 0)),
  );
  const kept = new RangeSet();
  for (const index of blocks) {
    const { blobOffset, blobLength } = table.at(index);
    kept.add({ start: blobOffset, end: blobOffset + blobLength });
  }
  const end = [...kept].at(-1)?.end ?? 0;
  await file.truncate(end);
  for (const { start, end: holeEnd } of kept.missing({ start: 0, end })) {
    await file.punch(start, holeEnd - start);
  }
  await files.rename(plan.path, blobPath);
  return blocks;
}

/** Copies the blocks that the layer lacks, as far as there is room. */
export async function copyFill(
  files: CacheFiles,
  { fill, table, keptBytes }: Filled,
  layer: CachedLayer,
): Promise<void> {
  if ((await files.stat(fill.plan.path)) === undefined) return; // moved
  await using file = await files.open(fill.plan.path);
  const { sizeBytes } = await file.stat();
  const blocks = wholeBlocks(table, Math.min(sizeBytes, keptBytes));
  for (let index = 0; index < blocks; index += 1) {
    if (layer.has(index)) continue;
    const { tarOffset, tarLength } = table.at(index);
    if (!(await layer.write(index, await file.readAt(tarOffset, tarLength)))) return;
  }
}

/** The same for blob bytes, which take their room as they are copied. */
export async function copyBlobFill(
  files: CacheFiles,
  { fill, table, keptBlobBytes }: Filled,
  layer: CachedLayer,
): Promise<void> {
  const path = fill.plan.blob?.path;
  const { blobs } = layer;
  if (path === undefined || blobs === undefined) return;
  if ((await files.stat(path)) === undefined) return; // moved
  fill.releaseBlob();
  await using file = await files.open(path);
  const { sizeBytes } = await file.stat();
  for (const index of blobBlocks(table, Math.min(sizeBytes, keptBlobBytes ?? 0))) {
    if (blobs.has(index)) continue;
    const { blobOffset, blobLength } = table.at(index);
    await blobs.write(index, await file.readAt(blobOffset, blobLength));
    if (!blobs.has(index)) return; // no room
  }
}

function wholeBlocks(table: BlockTable, keptBytes: number): number {
  if (keptBytes >= table.tarBytes) return table.count;
  return table.find(keptBytes);
}

/** Blocks whose blob bytes are there and can be had by themselves. */
function blobBlocks(table: BlockTable, keptBytes: number): readonly number[] {
  const blocks: number[] = [];
  for (let index = 0; index < table.count; index += 1) {
    const block = table.at(index);
    if (isSequential(block) || isPlain(block)) continue;
    if (block.blobOffset + block.blobLength <= keptBytes) blocks.push(index);
  }
  return blocks;
}

/** The first of the blocks that the reserved room holds, each in whole allocation units. */
async function affordable(
  fill: CacheFill,
  table: BlockTable,
  blocks: readonly number[],
): Promise<readonly number[]> {
  const costs = blocks.map((index) => {
    const { blobOffset, blobLength } = table.at(index);
    const end = Math.ceil((blobOffset + blobLength) / ALLOCATION_BYTES);
    return (end - Math.floor(blobOffset / ALLOCATION_BYTES)) * ALLOCATION_BYTES;
  });
  const total = costs.reduce((sum, cost) => sum + cost, 0);
  const missing = total - fill.blobReservedBytes;
  if (missing <= 0 || (await fill.growBlob(missing))) return blocks;
  let sum = 0;
  let fitting = 0;
  for (const cost of costs) {
    sum += cost;
    if (sum > fill.blobReservedBytes) break;
    fitting += 1;
  }
  return blocks.slice(0, fitting);
}
