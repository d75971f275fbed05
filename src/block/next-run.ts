/** Which request is made next: the scheduler's choice over all layers. */
import { FETCH_PRIORITY } from "./block-source.ts";
import type { BlockSource, FetchPriority } from "./block-source.ts";
import type { Flight } from "./flight.ts";
import type { LayerQueue } from "./layer-queue.ts";
import {
  BULK_RUN_BYTES_MAX,
  LAYER_RUNS_MAX,
  LAYER_WAITING_MAX,
  NO_SOURCE_POLL_MS,
  READER_RUN_BYTES_MAX,
} from "./limits.ts";
import type { OriginSlots } from "./origin-slots.ts";
import { planRun } from "./run-plan.ts";
import type { RunPlan } from "./run-plan.ts";

export interface Choice {
  readonly queue: LayerQueue;
  readonly source: BlockSource;
  readonly plan: RunPlan;
  /** Queued flights that the run serves. */
  readonly flights: readonly Flight[];
  readonly priority: FetchPriority;
}

export interface NextRun {
  readonly choice: Choice | undefined;
  /** Flights that no source is left for; looked at only as far as the search went. */
  readonly hopeless: readonly { readonly queue: LayerQueue; readonly flight: Flight }[];
  /** Flights of prefetch that no source has now. */
  readonly declined: readonly { readonly queue: LayerQueue; readonly flight: Flight }[];
  /** When something may become possible without anything else happening. */
  readonly wakeAtMs: number | undefined;
}

/** Queued blocks of one layer and priority that one search looks at. */
const FLIGHTS_EXAMINED_MAX = 256;
const PRIORITIES: readonly FetchPriority[] = [0, 1, 2, 3];

interface Search {
  readonly slots: OriginSlots;
  readonly nowMs: number;
  readonly hopeless: { readonly queue: LayerQueue; readonly flight: Flight }[];
  readonly declined: { readonly queue: LayerQueue; readonly flight: Flight }[];
  wakeAtMs: number | undefined;
}

/**
 * By priority; within one, layers with the fewest requests first, then the least recently served;
 * within a layer in order of arrival.
 */
export function chooseNext(
  queues: readonly LayerQueue[],
  slots: OriginSlots,
  nowMs: number,
): NextRun {
  const hopeless: Search["hopeless"] = [];
  const declined: Search["declined"] = [];
  const search: Search = { slots, nowMs, hopeless, declined, wakeAtMs: undefined };
  for (const priority of PRIORITIES) {
    const waiting = queues.filter((queue) => queue.queued(priority).size > 0);
    waiting.sort((a, b) => a.running - b.running || a.lastServed - b.lastServed);
    for (const queue of waiting) {
      const choice = chooseInLayer(search, queue, priority);
      if (choice !== undefined) return { choice, hopeless, declined, wakeAtMs: undefined };
    }
  }
  return { choice: undefined, hopeless, declined, wakeAtMs: search.wakeAtMs };
}

function chooseInLayer(
  search: Search,
  queue: LayerQueue,
  priority: FetchPriority,
): Choice | undefined {
  const sources = queue.layer.sources();
  if (sources.length === 0) {
    wakeAt(search, search.nowMs + NO_SOURCE_POLL_MS);
    return undefined;
  }
  let examined = 0;
  for (const flight of queue.queued(priority).values()) {
    examined += 1;
    if (examined > FLIGHTS_EXAMINED_MAX) return undefined;
    const usable = queue.usableSources(flight, sources, search.nowMs);
    if (usable.length === 0) {
      search.hopeless.push({ queue, flight });
      continue;
    }
    const source = queue.preferredSource(flight, usable, search.nowMs);
    if ("untilMs" in source) {
      // What is fetched ahead makes room for what can be had; others wait.
      if (source.isDeclined && priority === FETCH_PRIORITY.prefetch) {
        search.declined.push({ queue, flight });
      } else {
        wakeAt(search, source.untilMs);
      }
      continue;
    }
    if (!hasRoom(search, queue, source, priority) || isInPass(queue, flight)) continue;
    const choice = planFor(queue, { flight, source }, search.nowMs);
    // A frame is decoded as it streams: it is never held whole.
    const bytes = choice.plan.isFrame ? 0 : choice.plan.range.end - choice.plan.range.start;
    return search.slots.hasBytesFor(bytes) ? choice : undefined;
  }
  return undefined;
}

function hasRoom(
  search: Search,
  queue: LayerQueue,
  source: BlockSource,
  priority: FetchPriority,
): boolean {
  const { running, waiting } = queue.sourceState(source.name);
  const spared = Math.min(waiting, LAYER_WAITING_MAX[priority]);
  return (
    running - spared < LAYER_RUNS_MAX[priority] && search.slots.canStart(source.origin, priority)
  );
}

/** One pass at a time per frame. */
function isInPass(queue: LayerQueue, flight: Flight): boolean {
  if (queue.passes.size === 0) return false;
  const frame = queue.frameOf(flight.index);
  return frame !== undefined && queue.passes.has(frame.first);
}

function planFor(
  queue: LayerQueue,
  { flight: head, source }: { readonly flight: Flight; readonly source: BlockSource },
  nowMs: number,
): Choice {
  const mayJoin = (index: number): Flight | undefined => {
    const flight = queue.flights.get(index);
    if (flight?.state !== "queued" || flight.excluded.has(source.name)) return undefined;
    if ((flight.passedUntilMs.get(source.name) ?? -Infinity) > nowMs) return undefined;
    return flight;
  };
  const isBulk = head.priority >= FETCH_PRIORITY.prefetch;
  const lastPriority = source.isScarce === true ? head.priority : FETCH_PRIORITY.fill;
  const plan = planRun(queue.layer.table, head.index, {
    bytesMax: isBulk ? BULK_RUN_BYTES_MAX : READER_RUN_BYTES_MAX,
    mayPrecede: (index) => (mayJoin(index)?.priority ?? 4) <= head.priority,
    mayFollow: (index) => (mayJoin(index)?.priority ?? 4) <= lastPriority,
  });
  const flights: Flight[] = [];
  for (let index = plan.first; index <= plan.last; index += 1) {
    const flight = mayJoin(index);
    if (flight !== undefined) flights.push(flight);
  }
  return { queue, source, plan, flights, priority: head.priority };
}

function wakeAt(search: Search, atMs: number): void {
  search.wakeAtMs = Math.min(search.wakeAtMs ?? Infinity, atMs);
}
