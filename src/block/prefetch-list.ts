/** Fetching a list of blocks ahead, in its order, with neighbours together. */
import { throwIfAborted } from "../base/abort.ts";
import { DaemonError } from "../base/errors.ts";
import type { BlockOutcome } from "./flight.ts";
import { PREFETCH_LIST_MAX, PREFETCH_WINDOW_BLOCKS } from "./limits.ts";

export interface PrefetchListResult {
  readonly fetchedBlocks: number;
  /** They were there. */
  readonly presentBlocks: number;
  /** No source had them, or too much is waited for already. */
  readonly failedBlocks: number;
  /** Not tried: there is no room to keep what is fetched. */
  readonly leftBlocks: number;
}

export interface PrefetchListParts {
  isPresent(index: number): boolean;
  acquire(index: number): Promise<BlockOutcome>;
  readonly signal: AbortSignal;
}

/**
 * Rejects only for an aborted signal, and for a list that is too long (`out-of-range`): a block
 * that fails is another's business to report.
 */
export async function prefetchList(
  blocks: readonly number[],
  parts: PrefetchListParts,
): Promise<PrefetchListResult> {
  if (blocks.length > PREFETCH_LIST_MAX) {
    throw new DaemonError("out-of-range", `over ${PREFETCH_LIST_MAX} blocks to prefetch at once`);
  }
  const { signal } = parts;
  const counts = { fetchedBlocks: 0, presentBlocks: 0, failedBlocks: 0, leftBlocks: 0 };
  const active = new Set<Promise<void>>();
  const cache = { hasRoom: true };
  const fetch = async (index: number): Promise<void> => {
    try {
      const { isStored } = await parts.acquire(index);
      counts.fetchedBlocks += 1;
      if (!isStored) cache.hasRoom = false;
    } catch {
      counts.failedBlocks += 1;
    }
  };
  for (const index of new Set(blocks)) {
    // Many begin in one turn, so that neighbours are asked for together.
    if (active.size >= PREFETCH_WINDOW_BLOCKS) {
      while (active.size > PREFETCH_WINDOW_BLOCKS / 2) await Promise.race(active);
    }
    if (signal.aborted) break;
    if (!cache.hasRoom) counts.leftBlocks += 1;
    else if (parts.isPresent(index)) counts.presentBlocks += 1;
    else {
      const work = fetch(index).finally(() => active.delete(work));
      active.add(work);
    }
  }
  await Promise.all(active);
  throwIfAborted(signal);
  return counts;
}
