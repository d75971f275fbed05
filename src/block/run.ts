/** One range request under way and the blocks that still hope for it. */
import type { BlobRun, BlockSource, FetchPriority } from "./block-source.ts";
import type { Flight } from "./flight.ts";
import type { LayerQueue } from "./layer-queue.ts";
import type { OriginSlot } from "./origin-slots.ts";
import type { RunPlan } from "./run-plan.ts";

export interface Run {
  readonly queue: LayerQueue;
  readonly plan: RunPlan;
  readonly request: BlobRun;
  readonly source: BlockSource;
  readonly slot: OriginSlot;
  readonly controller: AbortController;
  /** Flights whose bytes have not arrived yet, by block index. */
  readonly hopeful: Map<number, Flight>;
  priority: FetchPriority;
  isParked: boolean;
  /** A zstd-sequential pass: whether it goes on when nobody waits (it stores what it decodes). */
  goesOnAlone: boolean;
}

/** Whether nobody waits for what the run has still to bring. */
export function isAbandoned(run: Run): boolean {
  if (run.goesOnAlone) return false;
  for (const flight of run.hopeful.values()) if (flight.waiters > 0) return false;
  return true;
}
