/**
 * Decides which missing blocks are asked for next, from whom, and what a failure means.
 *
 * Single flight per block; readers before read-ahead before prefetch before fill; neighbours in
 * one request; layers in turn; a source that fails is asked again with backoff while others are
 * tried. A flight lives as long as somebody waits for it: how long is the waiter's business.
 */
import { throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { ArrivingBlob } from "./arriving-blob.ts";
import type { BlockLayer, FetchPriority, StoredLayer } from "./block-source.ts";
import type { Block } from "./block-table.ts";
import { describeBlock } from "./finish-block.ts";
import type { BlockFinisher } from "./finish-block.ts";
import { Flight } from "./flight.ts";
import type { BlockOutcome } from "./flight.ts";
import { LayerQueue } from "./layer-queue.ts";
import { AHEAD_FLIGHTS_MAX, FLIGHTS_MAX } from "./limits.ts";
import { chooseNext } from "./next-run.ts";
import type { Choice } from "./next-run.ts";
import { OriginSlots } from "./origin-slots.ts";
import type { OriginSlotsOptions } from "./origin-slots.ts";
import type { ReadCounters } from "./read-counters.ts";
import type { BackoffOptions } from "./retry.ts";
import { isAbandoned, openRun } from "./run.ts";
import type { Run } from "./run.ts";
import { executeRun } from "./run-executor.ts";
import type { DecodeFrame, RunContext, RunReports } from "./run-executor.ts";
import { noteFailure } from "./run-failure.ts";
import { watchRun } from "./run-watch.ts";

export interface SchedulerOptions {
  readonly backoff: BackoffOptions;
  readonly slots: OriginSlotsOptions;
  /** Silence after which a request gives its slot to others. */
  readonly parkMs: number;
  /** Silence after which a request is given up and tried again. */
  readonly silenceMs: number;
  /** The same where another source could be asked instead. */
  readonly silenceWithOthersMs: number;
}

export interface SchedulerDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly finisher: BlockFinisher;
  readonly decodeFrame: DecodeFrame;
  readonly counters: (layerId: string) => ReadCounters;
}

export interface TapOptions {
  readonly priority: FetchPriority;
  readonly mayFetch: boolean;
  readonly isKept: boolean;
}

export interface OpenTap {
  readonly blob: ArrivingBlob;
  /** To be called once, when the bytes are no longer waited for. */
  readonly leave: () => void;
}

export interface SchedulerCounts {
  readonly flights: number;
  readonly queued: number;
  readonly runs: number;
  readonly active: number;
  readonly parked: number;
}

export class FetchScheduler implements AsyncDisposable {
  readonly #dependencies: SchedulerDependencies;
  readonly #options: SchedulerOptions;
  readonly #slots: OriginSlots;
  readonly #context: RunContext;
  readonly #queues = new Map<string, LayerQueue>();
  readonly #runs = new Set<Run>();
  readonly #tasks = new Set<Promise<void>>();
  #flightCount = 0;
  #served = 0;
  #isPumpDue = false;
  #isClosed = false;
  #cancelTimer: (() => void) | undefined;

  constructor(dependencies: SchedulerDependencies, options: SchedulerOptions) {
    this.#dependencies = dependencies;
    this.#options = options;
    this.#slots = new OriginSlots(options.slots);
    this.#context = {
      finisher: dependencies.finisher,
      decodeFrame: dependencies.decodeFrame,
      counters: (run) => dependencies.counters(run.queue.layer.id),
      reports: this.#reports(),
    };
  }

  get counts(): SchedulerCounts {
    let queued = 0;
    for (const queue of this.#queues.values()) queued += queue.queuedCount;
    return { flights: this.#flightCount, queued, runs: this.#runs.size, ...this.#slots.counts };
  }

  addLayer(layer: BlockLayer, stored: StoredLayer): void {
    if (this.#queues.has(layer.id)) {
      throw new DaemonError("already-exists", `layer ${layer.id} is already being read`);
    }
    this.#queues.set(layer.id, new LayerQueue(layer, stored));
  }

  /** Ends every flight of the layer with `canceled`. */
  removeLayer(layerId: string): void {
    const queue = this.#queues.get(layerId);
    if (queue === undefined) return;
    this.#queues.delete(layerId);
    queue.isClosed = true;
    const reason = new DaemonError("canceled", `layer ${layerId} is closed`);
    for (const run of this.#runs) if (run.queue === queue) run.controller.abort(reason);
    for (const flight of [...queue.flights.values()]) this.#fail(queue, flight, reason);
  }

  /**
   * Waits for a block that is neither stored nor in memory. Joins its flight where there is one,
   * and raises its priority.
   */
  async want(
    layerId: string,
    index: number,
    options: { readonly priority: FetchPriority; readonly signal: AbortSignal },
  ): Promise<BlockOutcome> {
    throwIfAborted(options.signal);
    const queue = this.#queue(layerId);
    const flight = queue.flights.get(index) ?? this.#launch(queue, index, options.priority);
    flight.isKept = true;
    if (options.priority < flight.priority) this.#promote(queue, flight, options.priority);
    return flight.wait(options.signal, () => {
      this.#onLeft(queue, flight);
    });
  }

  /**
   * The blob bytes of a block as they arrive, for another node. Joins its flight where there is
   * one, else `mayFetch` begins one; undefined otherwise. `isKept`: the block is
   * kept here as if a reader had asked for it.
   */
  tap(layerId: string, index: number, options: TapOptions): OpenTap | undefined {
    const queue = this.#queue(layerId);
    const known = queue.flights.get(index);
    if (known === undefined && !options.mayFetch) return undefined;
    const flight = known ?? this.#launch(queue, index, options.priority);
    if (options.isKept) flight.isKept = true;
    if (options.priority < flight.priority) this.#promote(queue, flight, options.priority);
    const leave = flight.join(() => {
      this.#onLeft(queue, flight);
    });
    const blob = flight.arriving(queue.layer.table.at(index).blobLength);
    return { blob, leave };
  }

  #queue(layerId: string): LayerQueue {
    const queue = this.#queues.get(layerId);
    if (queue === undefined || this.#isClosed) {
      throw new DaemonError("failed-precondition", `layer ${layerId} is not being read`);
    }
    return queue;
  }

  /** Why the block is not there yet, for the message of a reader that gave up. */
  lastError(layerId: string, index: number): DaemonError | undefined {
    return this.#queues.get(layerId)?.flights.get(index)?.lastError;
  }

  /** Something changed outside (the network is back, a source is ready): no backoff is sat out. */
  wake(sourceName?: string): void {
    for (const queue of this.#queues.values()) queue.forgetBackoff(sourceName);
    this.#schedulePump();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#cancelTimer?.();
    for (const layerId of [...this.#queues.keys()]) this.removeLayer(layerId);
    while (this.#tasks.size > 0) await Promise.allSettled(this.#tasks);
  }

  #launch(queue: LayerQueue, index: number, priority: FetchPriority): Flight {
    const max = priority === 0 ? FLIGHTS_MAX : AHEAD_FLIGHTS_MAX;
    if (this.#flightCount >= max) {
      throw new DaemonError("resource-exhausted", `over ${max} blocks are being waited for`);
    }
    const flight = new Flight(index, priority);
    queue.flights.set(index, flight);
    this.#flightCount += 1;
    if (!this.#joinPass(queue, flight) && !this.#startFromBlobs(queue, flight)) {
      queue.enqueue(flight);
      this.#schedulePump();
    }
    return flight;
  }

  /** A running zstd pass that has not come to the block yet will bring it. */
  #joinPass(queue: LayerQueue, flight: Flight): boolean {
    if (queue.passes.size === 0) return false;
    const frame = queue.frameOf(flight.index);
    const pass = frame === undefined ? undefined : queue.passes.get(frame.first);
    if (frame === undefined || pass === undefined || pass.next > flight.index) return false;
    for (const run of this.#runs) {
      if (run.queue !== queue || run.plan.first !== frame.first) continue;
      if (run.controller.signal.aborted) return false;
      flight.state = "running";
      run.hopeful.set(flight.index, flight);
      this.#setRunPriority(run, flight.priority);
      return true;
    }
    return false;
  }

  /** Kept blob bytes spare the request. */
  #startFromBlobs(queue: LayerQueue, flight: Flight): boolean {
    const { finisher } = this.#dependencies;
    if (!finisher.hasBlob(queue, flight.index)) return false;
    flight.state = "finishing";
    this.#track(this.#finishFromBlobs(queue, flight));
    return true;
  }

  async #finishFromBlobs(queue: LayerQueue, flight: Flight): Promise<void> {
    const { finisher } = this.#dependencies;
    const block = queue.layer.table.at(flight.index);
    try {
      const bytes = await finisher.readBlob(queue, block);
      if (bytes !== undefined) {
        flight.deliver(bytes);
        if (!flight.isKept) {
          this.#forget(queue, flight);
          flight.passedOn();
          return;
        }
        const { priority } = flight;
        const { track } = this.#context.reports;
        this.#succeed(
          queue,
          flight,
          await finisher.finish(queue, block, bytes, { priority, track }),
        );
        return;
      }
    } catch (error) {
      this.#dependencies.logger.warn("kept-blob-unusable", { layer: queue.layer.id, err: error });
    }
    this.#requeue(queue, flight);
  }

  #promote(queue: LayerQueue, flight: Flight, priority: FetchPriority): void {
    queue.promote(flight, priority);
    if (flight.state === "running") {
      for (const run of this.#runs) {
        if (run.hopeful.get(flight.index) === flight) this.#setRunPriority(run, priority);
      }
    }
    this.#schedulePump();
  }

  #setRunPriority(run: Run, priority: FetchPriority): void {
    if (priority >= run.priority) return;
    run.priority = priority;
    run.slot.setPriority(priority);
  }

  #onLeft(queue: LayerQueue, flight: Flight): void {
    if (flight.state === "queued") {
      this.#fail(queue, flight, new DaemonError("canceled", "nobody waits for the block any more"));
      return;
    }
    for (const run of this.#runs) {
      if (run.hopeful.get(flight.index) === flight) this.#abortIfAbandoned(run);
    }
  }

  #abortIfAbandoned(run: Run): void {
    if (run.hopeful.size === 0 && !run.plan.isFrame) return; // it ends by itself
    if (!isAbandoned(run)) return;
    const reason = new DaemonError("canceled", "nobody waits for these blocks any more");
    run.controller.abort(reason);
    for (const flight of [...run.hopeful.values()]) this.#fail(run.queue, flight, reason);
    run.hopeful.clear();
  }

  /** Removes the flight from the books. */
  #forget(queue: LayerQueue, flight: Flight): void {
    if (queue.flights.get(flight.index) !== flight) return;
    if (flight.state === "queued") queue.dequeue(flight);
    queue.flights.delete(flight.index);
    this.#flightCount -= 1;
  }

  #succeed(queue: LayerQueue, flight: Flight, outcome: BlockOutcome): void {
    this.#forget(queue, flight);
    flight.succeed(outcome);
  }

  #fail(queue: LayerQueue, flight: Flight, error: DaemonError): void {
    this.#forget(queue, flight);
    if (flight.state !== "settled") flight.fail(error);
  }

  /** Back into the queue, unless nobody waits or no source is left to ask. */
  #requeue(queue: LayerQueue, flight: Flight): void {
    if (flight.state === "settled") return;
    flight.restart();
    if (flight.waiters === 0 || queue.isClosed) {
      this.#fail(queue, flight, new DaemonError("canceled", "nobody waits for the block any more"));
      return;
    }
    queue.enqueue(flight);
    this.#schedulePump();
  }

  /** Many blocks asked for in one turn are planned together. */
  #schedulePump(): void {
    if (this.#isPumpDue || this.#isClosed) return;
    this.#isPumpDue = true;
    queueMicrotask(() => {
      this.#isPumpDue = false;
      this.#pump();
    });
  }

  #pump(): void {
    if (this.#isClosed) return;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    for (;;) {
      const nowMs = this.#dependencies.clock.nowMs();
      const next = chooseNext([...this.#queues.values()], this.#slots, nowMs);
      for (const { queue, flight } of next.hopeless) this.#giveUp(queue, flight);
      for (const { queue, flight } of next.declined) {
        const error = new DaemonError("unavailable", "no source has the block now");
        this.#fail(queue, flight, flight.lastError ?? error);
      }
      if (next.choice !== undefined) {
        this.#start(next.choice);
        continue;
      }
      if (next.hopeless.length > 0 || next.declined.length > 0) continue;
      if (next.wakeAtMs !== undefined) {
        this.#cancelTimer = this.#dependencies.clock.timer(
          Math.max(1, next.wakeAtMs - nowMs),
          () => {
            this.#schedulePump();
          },
        );
      }
      return;
    }
  }

  /** No source is left for the block. */
  #giveUp(queue: LayerQueue, flight: Flight): void {
    const block = queue.layer.table.at(flight.index);
    const what = `${describeBlock(queue.layer, block)} cannot be read`;
    const error = withContext(
      flight.lastError ?? new DaemonError("unavailable", "no source"),
      what,
    );
    this.#dependencies.logger.error("block-lost", {
      layer: queue.layer.id,
      blob: queue.layer.blobDigest,
      blobOffset: block.blobOffset,
      blobLength: block.blobLength,
      err: error,
    });
    this.#fail(queue, flight, error);
  }

  #start(choice: Choice): void {
    const { queue, source, plan, flights, priority } = choice;
    const state = queue.sourceState(source.name);
    const bytes = plan.isFrame ? 0 : plan.range.end - plan.range.start;
    const slot = this.#slots.take(source.origin, priority, bytes);
    const run = openRun(choice, slot);
    for (const flight of flights) queue.dequeue(flight);
    for (const flight of flights) flight.state = "running";
    state.running += 1;
    queue.running += 1;
    this.#served += 1;
    queue.lastServed = this.#served;
    if (plan.isFrame) queue.passes.set(plan.first, { next: plan.first });
    this.#runs.add(run);
    this.#track(this.#execute(run));
  }

  /** Never rejects. */
  async #execute(run: Run): Promise<void> {
    const state = run.queue.sourceState(run.source.name);
    const watch = watchRun(this.#dependencies.clock, run, this.#options, () => {
      this.#schedulePump();
    });
    let failure: unknown;
    try {
      await executeRun(this.#context, run, watch);
    } catch (error) {
      failure = error;
    }
    watch.stop();
    run.slot.release();
    state.running -= 1;
    run.queue.running -= 1;
    if (run.plan.isFrame) run.queue.passes.delete(run.plan.first);
    this.#runs.delete(run);
    if (failure !== undefined) {
      noteFailure(run, failure, { ...this.#dependencies, backoff: this.#options.backoff });
    }
    for (const flight of run.hopeful.values()) this.#requeue(run.queue, flight);
    // Ends the source's stream where it was not read to its end.
    run.controller.abort(new DaemonError("canceled", "the request is over"));
    this.#schedulePump();
  }

  #reports(): RunReports {
    return {
      onProgress: ({ queue, source }) => {
        const state = queue.sourceState(source.name);
        if (state.failures > 0) {
          const fields = { layer: queue.layer.id, source: source.name };
          this.#dependencies.logger.info("source-recovered", fields);
          this.#schedulePump();
        }
        state.failures = 0;
        state.retryAtMs = 0;
        state.refusal = undefined;
      },
      onOutcome: ({ queue }, flight) => {
        this.#forget(queue, flight);
      },
      onBadBlock: (run, flight, block, error) => {
        this.#onBadBlock(run, flight, block, error);
      },
      onLost: ({ queue }, flight, error) => {
        flight.lastError = error;
        this.#giveUp(queue, flight);
      },
      onSettled: (run) => {
        if (run.goesOnAlone) {
          const isWanted = [...run.hopeful.values()].some((flight) => flight.waiters > 0);
          if (!isWanted && run.priority < 3) {
            run.priority = 3;
            run.slot.setPriority(3);
          }
        }
        this.#abortIfAbandoned(run);
      },
      track: (work) => {
        this.#track(work);
      },
    };
  }

  #onBadBlock(run: Run, flight: Flight | undefined, block: Block, error: DaemonError): void {
    const { queue, source } = run;
    const fields = { layer: queue.layer.id, blob: queue.layer.blobDigest, source: source.name };
    this.#dependencies.logger.warn("block-corrupt", { ...fields, err: error });
    source.onBadBlock?.(run.request, block);
    if (flight === undefined) return;
    queue.corrupt(flight, source, error);
    this.#requeue(queue, flight);
  }

  #track(work: Promise<void>): void {
    const task = work
      .catch((error: unknown) => {
        this.#dependencies.logger.error("fetch-task-failed", { err: error });
      })
      .finally(() => {
        this.#tasks.delete(task);
      });
    this.#tasks.add(task);
  }
}
