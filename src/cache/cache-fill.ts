/** A filling pass as the parent process sees it: room reserved, a file to adopt. */
import type { BlockTable } from "../block/index.ts";
import type { CachedLayer } from "./cached-layer.ts";
import type { CacheFiles } from "./cache-files.ts";
import type { CacheQuota } from "./cache-quota.ts";
import type { FillPlan } from "./fill.ts";
import { FILL_QUOTA_SHARE, FILL_RATIO_ESTIMATE, FILL_WRITE_BYTES } from "./limits.ts";

/** Disposing it gives up what was not adopted. */
export class CacheFill implements AsyncDisposable {
  /** For `openFill` in the child process. */
  readonly plan: FillPlan;
  readonly #quota: CacheQuota;
  readonly #files: CacheFiles;
  #isReserved = true;

  private constructor(quota: CacheQuota, files: CacheFiles, plan: FillPlan) {
    this.#quota = quota;
    this.#files = files;
    this.plan = plan;
  }

  /**
   * Reserves an estimate of the layer's tar bytes: what is free, or else at most a share of the
   * quota for all passes together, so that a pull does not push out what containers use. Of a
   * layer that does not fit, the first part is kept.
   */
  static async begin(
    quota: CacheQuota,
    files: CacheFiles,
    layer: {
      readonly path: string;
      readonly estimate: { readonly blobBytes: number; readonly isCompressed: boolean };
    },
  ): Promise<CacheFill | undefined> {
    const { blobBytes, isCompressed } = layer.estimate;
    const wanted = blobBytes * (isCompressed ? FILL_RATIO_ESTIMATE : 1) + FILL_WRITE_BYTES;
    const share = quota.quotaBytes * FILL_QUOTA_SHARE - quota.used.fills;
    const bytesMax = Math.floor(Math.min(wanted, Math.max(quota.roomBytes, share)));
    if (bytesMax < FILL_WRITE_BYTES) return undefined;
    if (!(await quota.reserve("fills", bytesMax))) return undefined;
    return new CacheFill(quota, files, { path: layer.path, bytesMax });
  }

  /** Gives the reservation back, once. */
  release(): void {
    if (this.#isReserved) this.#quota.release("fills", this.plan.bytesMax);
    this.#isReserved = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
    await this.#files.remove(this.plan.path);
  }
}

/** What a pass has written. */
export interface Filled {
  readonly fill: CacheFill;
  readonly table: BlockTable;
  readonly keptBytes: number;
}

/** Renames the file into the decoded store; the result is how many blocks it holds, from 0. */
export async function moveFill(
  files: CacheFiles,
  { fill, table, keptBytes }: Filled,
  decodedPath: string,
): Promise<number> {
  const { path } = fill.plan;
  await using file = await files.open(path);
  const { sizeBytes } = await file.stat();
  const blocks = wholeBlocks(table, Math.min(sizeBytes, keptBytes));
  const end = blocks === table.count ? table.tarBytes : table.tarOffsetOf(blocks);
  await file.truncate(end);
  await file.truncate(Math.ceil(table.tarBytes / 512) * 512);
  await files.rename(path, decodedPath);
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

function wholeBlocks(table: BlockTable, keptBytes: number): number {
  if (keptBytes >= table.tarBytes) return table.count;
  return table.find(keptBytes);
}
