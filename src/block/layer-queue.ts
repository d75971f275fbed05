/** One layer's missing blocks by priority, and how its sources have behaved. */
import { DaemonError } from "../base/errors.ts";
import type { BlockLayer, BlockSource, FetchPriority, StoredLayer } from "./block-source.ts";
import type { Flight } from "./flight.ts";
import { CORRUPT_TRIES_MAX, NO_SOURCE_POLL_MS, REFUSAL_MS } from "./limits.ts";
import { frameSpan, isSequential } from "./run-plan.ts";

/** How a source behaves towards one layer. */
export interface SourceState {
  /** Requests under way, waiting and silent ones included. */
  running: number;
  /** Of those: no bytes, but signs of life. */
  waiting: number;
  /** Of those: no sign of life. */
  silent: number;
  /** Transient failures in a row. */
  failures: number;
  retryAtMs: number;
  refusal: { readonly untilMs: number; readonly error: DaemonError } | undefined;
}

type QueueClass = Map<number, Flight>;

export class LayerQueue {
  readonly layer: BlockLayer;
  readonly stored: StoredLayer;
  /** Every flight of the layer, by block index. */
  readonly flights = new Map<number, Flight>();
  /** First block of the running zstd-sequential passes, and the next block that each will yield. */
  readonly passes = new Map<number, { next: number }>();
  running = 0;
  /** When it was last given a request: the least recently served goes first. */
  lastServed = 0;
  isClosed = false;
  readonly #queued: readonly [QueueClass, QueueClass, QueueClass, QueueClass] = [
    new Map(),
    new Map(),
    new Map(),
    new Map(),
  ];
  readonly #frames = new Map<number, { readonly first: number; readonly last: number }>();
  readonly #sources = new Map<string, SourceState>();

  constructor(layer: BlockLayer, stored: StoredLayer) {
    this.layer = layer;
    this.stored = stored;
  }

  queued(priority: FetchPriority): ReadonlyMap<number, Flight> {
    return this.#queued[priority];
  }

  get queuedCount(): number {
    return this.#queued.reduce((sum, map) => sum + map.size, 0);
  }

  enqueue(flight: Flight): void {
    flight.state = "queued";
    this.#queued[flight.priority].set(flight.index, flight);
  }

  dequeue(flight: Flight): void {
    this.#queued[flight.priority].delete(flight.index);
  }

  /** Raises the priority of a flight; one in the queue moves to the end of its new class. */
  promote(flight: Flight, priority: FetchPriority): void {
    if (flight.state === "queued") this.dequeue(flight);
    flight.priority = priority;
    if (flight.state === "queued") this.enqueue(flight);
  }

  /** The zstd-sequential frame that holds the block, by its first and last block. */
  frameOf(index: number): { readonly first: number; readonly last: number } | undefined {
    const block = this.layer.table.at(index);
    if (!isSequential(block)) return undefined;
    let frame = this.#frames.get(block.blobOffset);
    if (frame === undefined) {
      frame = frameSpan(this.layer.table, index);
      this.#frames.set(block.blobOffset, frame);
    }
    return frame;
  }

  sourceState(name: string): SourceState {
    let state = this.#sources.get(name);
    if (state === undefined) {
      state = {
        running: 0,
        waiting: 0,
        silent: 0,
        failures: 0,
        retryAtMs: 0,
        refusal: undefined,
      };
      this.#sources.set(name, state);
    }
    return state;
  }

  /** The sources that may be asked for the flight at all, now or later. */
  usableSources(flight: Flight, sources: readonly BlockSource[], nowMs: number): BlockSource[] {
    return sources.filter((source) => {
      const { refusal } = this.sourceState(source.name);
      if (refusal !== undefined && refusal.untilMs > nowMs) {
        flight.lastError = refusal.error;
        return false;
      }
      return !flight.excluded.has(source.name);
    });
  }

  /**
   * The one source to ask next: the first that is ready and not backing off, one without silent
   * requests before one with. Else when to look again; `isDeclined`: each has passed on the block
   * or is to be skipped, so that nothing is known to change soon.
   */
  preferredSource(
    flight: Flight,
    usable: readonly BlockSource[],
    nowMs: number,
  ): BlockSource | { readonly untilMs: number; readonly isDeclined: boolean } {
    let silent: BlockSource | undefined;
    let untilMs = Infinity;
    let isDeclined = true;
    for (const source of usable) {
      const { retryAtMs, silent: silentRuns } = this.sourceState(source.name);
      const passedMs = flight.passedUntilMs.get(source.name) ?? -Infinity;
      if (passedMs > nowMs || retryAtMs > nowMs) {
        untilMs = Math.min(untilMs, Math.max(passedMs, retryAtMs));
        isDeclined &&= passedMs > nowMs;
        continue;
      }
      const readiness = source.readiness?.(flight.priority) ?? "ready";
      if (readiness === "ready") {
        if (silentRuns === 0) return source;
        silent ??= source;
      } else if (readiness !== "skip" && readiness.untilMs > nowMs) {
        untilMs = Math.min(untilMs, readiness.untilMs);
        isDeclined = false;
        break;
      } else {
        untilMs = Math.min(untilMs, nowMs + NO_SOURCE_POLL_MS);
        flight.lastError ??= new DaemonError(
          "unavailable",
          `${source.name} is not to be asked now`,
        );
      }
    }
    return silent ?? { untilMs, isDeclined };
  }

  /** Of one source, its refusals too, or of all. */
  forgetBackoff(name?: string): void {
    for (const [key, state] of this.#sources) {
      if (name !== undefined && key !== name) continue;
      state.retryAtMs = 0;
      if (name !== undefined) state.refusal = undefined;
    }
    for (const { passedUntilMs } of this.flights.values()) {
      if (name === undefined) passedUntilMs.clear();
      else passedUntilMs.delete(name);
    }
  }

  refused(source: BlockSource, error: DaemonError, nowMs: number): void {
    this.sourceState(source.name).refusal = { untilMs: nowMs + REFUSAL_MS, error };
  }

  /** Notes wrong bytes; the source is not asked again for the block after a second time. */
  corrupt(flight: Flight, source: BlockSource, error: DaemonError): void {
    const tries = (flight.corruptBySource.get(source.name) ?? 0) + 1;
    flight.corruptBySource.set(source.name, tries);
    flight.lastError = error;
    if (tries >= CORRUPT_TRIES_MAX) flight.excluded.set(source.name, error);
  }
}
