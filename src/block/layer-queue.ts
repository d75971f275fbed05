/** One layer's missing blocks by priority, and how its sources have behaved. */
import type { DaemonError } from "../base/errors.ts";
import type { BlockLayer, BlockSource, FetchPriority, StoredLayer } from "./block-source.ts";
import type { Flight } from "./flight.ts";
import { CORRUPT_TRIES_MAX, REFUSAL_MS } from "./limits.ts";
import { frameSpan, isSequential } from "./run-plan.ts";

/** How a source behaves towards one layer. */
export interface SourceState {
  /** Requests under way, parked ones included. */
  running: number;
  parked: number;
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
      state = { running: 0, parked: 0, failures: 0, retryAtMs: 0, refusal: undefined };
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
   * The one source to ask next: the first that is not backing off, one without silent requests
   * before one with.
   */
  preferredSource(usable: readonly BlockSource[], nowMs: number): BlockSource | undefined {
    const ready = usable.filter((source) => this.sourceState(source.name).retryAtMs <= nowMs);
    return ready.find((source) => this.sourceState(source.name).parked === 0) ?? ready[0];
  }

  forgetBackoff(): void {
    for (const state of this.#sources.values()) state.retryAtMs = 0;
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
