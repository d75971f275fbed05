/** One range request under way and the blocks that still hope for it. */
import type { BlobRun, BlockSource, FetchPriority } from "./block-source.ts";
import type { Flight } from "./flight.ts";
import type { LayerQueue } from "./layer-queue.ts";
import type { Choice } from "./next-run.ts";
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
  /** A zstd-sequential pass: whether it goes on when nobody waits (it stores what it decodes). */
  goesOnAlone: boolean;
}

export function openRun(choice: Choice, slot: OriginSlot): Run {
  const { queue, source, plan, flights, priority } = choice;
  return {
    queue,
    plan,
    request: {
      layerId: queue.layer.id,
      blobDigest: queue.layer.blobDigest,
      blobBytes: queue.layer.blobBytes,
      range: plan.range,
      firstBlock: plan.first,
      lastBlock: plan.last,
      blocks: plan.isFrame ? [] : plan.places,
    },
    source,
    slot,
    controller: new AbortController(),
    hopeful: new Map(flights.map((flight) => [flight.index, flight])),
    priority,
    goesOnAlone: false,
  };
}

/** Whether nobody waits for what the run has still to bring. */
export function isAbandoned(run: Run): boolean {
  if (run.goesOnAlone) return false;
  for (const flight of run.hopeful.values()) if (flight.waiters > 0) return false;
  return true;
}
