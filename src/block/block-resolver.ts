/**
 * The read path: makes ranges of layers readable.
 *
 *     ensure(range) -> blocks -> store: present? -> memory? -> kept blob bytes | source
 *                   -> verify blob bytes -> decode -> verify tar bytes -> store -> present
 *
 * A present block is answered at once, whatever else waits. See docs/ARCHITECTURE.md.
 */
import { abortReason, throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorCode, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import type { ByteRange } from "../base/range-set.ts";
import { assemble, presentRange } from "./assemble.ts";
import { AskedBlocks } from "./asked-blocks.ts";
import { BlobRelay } from "./blob-relay.ts";
import type { OpenBlobOptions, OpenedBlob } from "./blob-relay.ts";
import { FETCH_PRIORITY } from "./block-source.ts";
import type { BlockLayer, FetchPriority, StoredLayer } from "./block-source.ts";
import { FetchOrder } from "./fetch-order.ts";
import { FetchScheduler } from "./fetch-scheduler.ts";
import type { SchedulerCounts, SchedulerOptions } from "./fetch-scheduler.ts";
import { BlockFinisher } from "./finish-block.ts";
import type { DecodeBlock } from "./finish-block.ts";
import type { BlockOutcome } from "./flight.ts";
import { ENSURE_BYTES_MAX, ENSURE_ROUNDS_MAX, CALL_BLOCKS_MAX } from "./limits.ts";
import { MemoryBlocks } from "./memory-blocks.ts";
import { shortDigest } from "./names.ts";
import { DEFAULT_ORIGIN_SLOTS } from "./origin-slots.ts";
import { prefetchList } from "./prefetch-list.ts";
import type { PrefetchListResult } from "./prefetch-list.ts";
import { DEFAULT_READ_AHEAD, ReadAhead } from "./read-ahead.ts";
import type { ReadAheadOptions } from "./read-ahead.ts";
import { ReadCounters } from "./read-counters.ts";
import type { ReadCounts } from "./read-counters.ts";
import { DEFAULT_BACKOFF } from "./retry.ts";
import type { DecodeFrame } from "./run-executor.ts";

export interface BlockResolverOptions extends SchedulerOptions {
  /** How long a reader waits for a block, all retries together. 0: for ever. */
  readonly readLimitMs: number;
  readonly readAhead: ReadAheadOptions;
  /** Decoded blocks kept in memory when the disk has no room. */
  readonly memoryBytesMax: number;
  /** Verified blob bytes kept in memory for other nodes: RELAY_MEMORY_BYTES in a tree. */
  readonly relayMemoryBytesMax: number;
}

export const DEFAULT_BLOCK_RESOLVER_OPTIONS: BlockResolverOptions = {
  readLimitMs: 60_000,
  readAhead: DEFAULT_READ_AHEAD,
  memoryBytesMax: 8 * 1024 * 1024,
  relayMemoryBytesMax: 0,
  backoff: DEFAULT_BACKOFF,
  slots: DEFAULT_ORIGIN_SLOTS,
  parkMs: 500,
  silenceMs: 15_000,
  silenceWithOthersMs: 3000,
};

export interface BlockResolverDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly decodeBlock: DecodeBlock;
  readonly decodeFrame: DecodeFrame;
}

export interface EnsureOptions {
  readonly priority: FetchPriority;
  readonly signal: AbortSignal;
  /** Instead of `readLimitMs`, which bounds readers (priority 0) only. 0: for ever. */
  readonly limitMs?: number;
}

export type EnsureResult =
  /** Present in the store: whole blocks, so it may be more than was asked for. */
  | { readonly present: readonly ByteRange[] }
  /** Not kept: exactly the bytes asked for. */
  | { readonly data: Uint8Array };

export interface FillSpanResult {
  readonly storedBlocks: number;
  /** Fetched, but there was no room to keep them. */
  readonly passedBlocks: number;
}

/** A block is new in a layer's order; must not throw. */
export type OrderListener = (layerId: string, index: number) => void;

interface OpenLayer {
  readonly layer: BlockLayer;
  readonly stored: StoredLayer;
  readonly counters: ReadCounters;
  readonly readAhead: ReadAhead;
  readonly order: FetchOrder;
  readonly asked: AskedBlocks;
  readonly controller: AbortController;
  readonly signal: AbortSignal;
  /** The store refused the last block: fetching ahead would be for nothing. */
  isPassingThrough: boolean;
}

export class BlockResolver implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #options: BlockResolverOptions;
  readonly #memory: MemoryBlocks;
  readonly #blobMemory: MemoryBlocks;
  readonly #relay: BlobRelay;
  readonly #orderListeners = new Set<OrderListener>();
  readonly #scheduler: FetchScheduler;
  readonly #layers = new Map<string, OpenLayer>();
  /** Of layers that were removed; `stats` never runs backwards. */
  readonly #closedCounters = new ReadCounters();

  constructor(
    dependencies: BlockResolverDependencies,
    options: Partial<BlockResolverOptions> = {},
  ) {
    this.#clock = dependencies.clock;
    this.#logger = dependencies.logger;
    this.#options = { ...DEFAULT_BLOCK_RESOLVER_OPTIONS, ...options };
    this.#memory = new MemoryBlocks(this.#options.memoryBytesMax);
    this.#blobMemory = new MemoryBlocks(this.#options.relayMemoryBytesMax);
    const { clock, random, logger, decodeFrame } = dependencies;
    const finisher = new BlockFinisher(dependencies.decodeBlock, this.#memory, this.#blobMemory);
    const counters = (layerId: string): ReadCounters =>
      this.#layers.get(layerId)?.counters ?? this.#closedCounters;
    this.#scheduler = new FetchScheduler(
      { clock, random, logger, finisher, decodeFrame, counters },
      this.#options,
    );
    this.#relay = new BlobRelay({
      scheduler: this.#scheduler,
      finisher,
      memory: this.#blobMemory,
      logger,
    });
  }

  /** Makes a layer readable; `already-exists` when it is. The store stays its owner's. */
  addLayer(layer: BlockLayer, stored: StoredLayer): void {
    this.#scheduler.addLayer(layer, stored);
    const controller = new AbortController();
    this.#layers.set(layer.id, {
      layer,
      stored,
      counters: new ReadCounters(),
      readAhead: new ReadAhead(this.#options.readAhead),
      order: new FetchOrder((index) => {
        for (const listener of this.#orderListeners) listener(layer.id, index);
      }),
      asked: new AskedBlocks(),
      controller,
      signal: controller.signal,
      isPassingThrough: false,
    });
  }

  hasLayer(layerId: string): boolean {
    return this.#layers.has(layerId);
  }

  /** Readers of the layer fail with `canceled`. */
  removeLayer(layerId: string): void {
    const open = this.#layers.get(layerId);
    if (open === undefined) return;
    this.#layers.delete(layerId);
    this.#closedCounters.add(open.counters);
    open.controller.abort(new DaemonError("canceled", `layer ${layerId} is closed`));
    this.#scheduler.removeLayer(layerId);
  }

  /**
   * Makes a tar range of the layer readable. The range may reach into the padding of the data
   * device (to a multiple of 512), which reads as zeros. Fails with `unavailable` when sources
   * do not answer within the limit, `data-loss` when they answer wrongly, `out-of-range`. An
   * aborted caller leaves at once; what others wait for goes on.
   */
  async ensure(layerId: string, range: ByteRange, options: EnsureOptions): Promise<EnsureResult> {
    const open = this.#open(layerId);
    const { table } = open.layer;
    const deviceBytes = Math.ceil(table.tarBytes / 512) * 512;
    if (range.start < 0 || range.end <= range.start || range.end > deviceBytes) {
      const text = `${range.start}-${range.end} of ${deviceBytes}`;
      throw new DaemonError("out-of-range", `bytes ${text} of layer ${layerId}`);
    }
    if (range.end - range.start > ENSURE_BYTES_MAX) {
      throw new DaemonError("out-of-range", `over ${ENSURE_BYTES_MAX} bytes asked for at once`);
    }
    if (range.start >= table.tarBytes) return { present: [range] };
    const span = table.span({ start: range.start, end: Math.min(range.end, table.tarBytes) });
    checkSpan(span);
    if (options.priority !== FETCH_PRIORITY.fill) noteSpan(open.order, span);
    if (options.priority === FETCH_PRIORITY.reader) this.#readAhead(open, range, span);
    if (open.stored.hold(span.first, span.last)) {
      const present = presentRange(open.layer, span);
      open.counters.disk.add(1, span.last - span.first + 1, present.end - present.start);
      return { present: [present] };
    }
    return this.#withLimit(open, span, options, (signal) =>
      this.#ensureMissing(open, { range, span }, { priority: options.priority, signal }),
    );
  }

  /**
   * Brings blocks first…last into the store, in order of the tar stream. Stops at the first
   * failure, which it throws.
   */
  async fill(
    layerId: string,
    span: { readonly first: number; readonly last: number },
    options: EnsureOptions,
  ): Promise<FillSpanResult> {
    const open = this.#open(layerId);
    checkSpan(span);
    return this.#withLimit(open, span, options, async (signal) => {
      const outcomes = await this.#acquireAll(open, span, { priority: options.priority, signal });
      const storedBlocks = outcomes.filter((outcome) => outcome.isStored).length;
      return { storedBlocks, passedBlocks: outcomes.length - storedBlocks };
    });
  }

  /**
   * Fetches blocks ahead of their readers, in the list's order, below every reader and above fill.
   * What is there is passed over, what fails is left to whoever will want it. Rejects when the
   * signal is aborted, for a list of over PREFETCH_LIST_MAX or with foreign indexes
   * (`out-of-range`).
   */
  async prefetch(
    layerId: string,
    blocks: readonly number[],
    { signal }: { readonly signal: AbortSignal },
  ): Promise<PrefetchListResult> {
    const open = this.#open(layerId);
    const { count } = open.layer.table;
    const isForeign = (index: number): boolean =>
      !Number.isInteger(index) || index < 0 || index >= count;
    if (blocks.some(isForeign)) {
      throw new DaemonError("out-of-range", `layer ${layerId} has ${count} blocks`);
    }
    const options = {
      priority: FETCH_PRIORITY.prefetch,
      signal: AbortSignal.any([signal, open.signal]),
    };
    return prefetchList(blocks, {
      isPresent: (index) => open.stored.has(index),
      acquire: async (index) => {
        open.order.add(index);
        return this.#acquire(open, index, options);
      },
      signal: options.signal,
    });
  }

  /**
   * The blob bytes of one block, for another node: what is here at once, what is on its way as it
   * arrives, else (with `mayFetch`) fetched at the priority. Undefined: neither, or the block is
   * part of a `zstd-sequential` frame. Throws `out-of-range`, `not-found` (the layer is not open),
   * `resource-exhausted` (too much is open for others), `canceled`.
   *
   * Whoever takes the result reads `pieces` to the end, or leaves their loop, or aborts the signal:
   * the bytes are held until then.
   */
  async openBlob(
    layerId: string,
    block: number,
    options: OpenBlobOptions,
  ): Promise<OpenedBlob | undefined> {
    const open = this.#open(layerId);
    const opened = await this.#relay.open(open, block, options);
    const isDemand = opened?.from === "relay" && options.priority === FETCH_PRIORITY.reader;
    if (isDemand) open.order.add(block);
    return opened;
  }

  /** In which order the layer's blocks were first wanted here, fill excepted. */
  order(layerId: string): FetchOrder {
    return this.#open(layerId).order;
  }

  /** Tells of each block that is new in a layer's order; the result stops it. */
  onOrder(listener: OrderListener): () => void {
    this.#orderListeners.add(listener);
    return () => {
      this.#orderListeners.delete(listener);
    };
  }

  /**
   * A source has appeared, recovered or become ready: waiting blocks need not sit out their
   * backoff. With a source's name, only that one's is forgotten, and its refusals too.
   */
  wake(sourceName?: string): void {
    this.#scheduler.wake(sourceName);
  }

  /** Forgets the blocks kept in memory (`faasnet cache clear`). */
  clearMemory(): void {
    this.#memory.clear();
    this.#blobMemory.clear();
  }

  stats(layerId?: string): ReadCounts {
    if (layerId !== undefined) return this.#open(layerId).counters.snapshot();
    const sum = new ReadCounters();
    sum.add(this.#closedCounters);
    for (const { counters } of this.#layers.values()) sum.add(counters);
    return sum.snapshot();
  }

  /** What is going on now. */
  get counts(): SchedulerCounts & { readonly memoryBytes: number; readonly relayBytes: number } {
    const memoryBytes = this.#memory.bytes + this.#blobMemory.bytes;
    return { ...this.#scheduler.counts, memoryBytes, relayBytes: this.#relay.bytes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const layerId of [...this.#layers.keys()]) this.removeLayer(layerId);
    await this.#scheduler[Symbol.asyncDispose]();
    this.clearMemory();
  }

  #open(layerId: string): OpenLayer {
    const open = this.#layers.get(layerId);
    if (open === undefined) {
      throw new DaemonError("not-found", `layer ${layerId} is not being read`);
    }
    return open;
  }

  async #ensureMissing(
    open: OpenLayer,
    asked: { readonly range: ByteRange; readonly span: { first: number; last: number } },
    options: { readonly priority: FetchPriority; readonly signal: AbortSignal },
  ): Promise<EnsureResult> {
    const { range, span } = asked;
    for (let round = 0; round < ENSURE_ROUNDS_MAX; round += 1) {
      const outcomes = await this.#acquireAll(open, span, options);
      if (open.stored.hold(span.first, span.last)) {
        return { present: [presentRange(open.layer, span)] };
      }
      const data = await assemble(open, { range, first: span.first }, outcomes);
      if (data !== undefined) return { data };
      // A block was evicted while its neighbours were on their way.
    }
    throw new DaemonError("resource-exhausted", "blocks are evicted as fast as they are fetched");
  }

  /** All at once, so that neighbours are fetched together; the first failure ends the wait. */
  async #acquireAll(
    open: OpenLayer,
    { first, last }: { readonly first: number; readonly last: number },
    options: { readonly priority: FetchPriority; readonly signal: AbortSignal },
  ): Promise<BlockOutcome[]> {
    const leave = new AbortController();
    const signal = AbortSignal.any([options.signal, leave.signal]);
    const waits: Promise<BlockOutcome>[] = [];
    for (let index = first; index <= last; index += 1) {
      waits.push(this.#acquire(open, index, { priority: options.priority, signal }));
    }
    try {
      return await Promise.all(waits);
    } finally {
      leave.abort(new DaemonError("canceled", "another block of the range failed"));
      // Those that failed later than the first have no other reader.
      await Promise.allSettled(waits);
    }
  }

  async #acquire(
    open: OpenLayer,
    index: number,
    options: { readonly priority: FetchPriority; readonly signal: AbortSignal },
  ): Promise<BlockOutcome> {
    const { layer, stored, counters } = open;
    const isDoubtful = stored.isDoubtful(index);
    const isThere =
      stored.has(index) || (isDoubtful && (await this.#confirm(open, index, options.signal)));
    if (isThere) {
      counters.disk.add(1, 1, layer.table.at(index).tarLength);
      return { isStored: true };
    }
    const bytes = this.#memory.get(layer.id, index);
    if (bytes !== undefined) {
      counters.memory.add(1, 1, bytes.length);
      return { isStored: false, bytes };
    }
    const outcome = await this.#scheduler.want(layer.id, index, options);
    open.isPassingThrough = !outcome.isStored;
    return outcome;
  }

  async #confirm(open: OpenLayer, index: number, signal: AbortSignal): Promise<boolean> {
    try {
      return await open.stored.confirm(index, { signal });
    } catch (error) {
      throwIfAborted(signal);
      this.#logger.warn("cached-block-unverified", { layer: open.layer.id, err: error });
      return false; // fetched anew
    }
  }

  #readAhead(
    open: OpenLayer,
    range: ByteRange,
    span: { readonly first: number; readonly last: number },
  ): void {
    const ahead = open.readAhead.onRead(open.layer.table, range, span);
    if (ahead === undefined || open.isPassingThrough) return;
    const options = { priority: FETCH_PRIORITY.readAhead, signal: open.controller.signal };
    for (let index = ahead.first; index <= ahead.last; index += 1) {
      open.order.add(index);
      if (open.stored.has(index)) continue;
      this.#acquire(open, index, options).catch((error: unknown) => {
        this.#logger.debug("read-ahead-failed", { layer: open.layer.id, err: error });
      });
    }
  }

  async #withLimit<T>(
    open: OpenLayer,
    span: { readonly first: number; readonly last: number },
    options: EnsureOptions,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    throwIfAborted(options.signal);
    const isReader = options.priority === FETCH_PRIORITY.reader;
    const limitMs = options.limitMs ?? (isReader ? this.#options.readLimitMs : 0);
    if (limitMs === 0) return work(options.signal);
    const limit = new AbortController();
    const cancelTimer = this.#clock.timer(limitMs, () => {
      limit.abort(this.#limitError(open, span, limitMs));
    });
    try {
      return await work(AbortSignal.any([options.signal, limit.signal]));
    } catch (error) {
      if (!limit.signal.aborted || errorCode(error) === "data-loss") throw error;
      const reason = abortReason(limit.signal);
      this.#logger.warn("read-limit-reached", { layer: open.layer.id, limitMs, err: reason });
      throw reason;
    } finally {
      cancelTimer();
    }
  }

  #limitError(
    { layer }: OpenLayer,
    span: { readonly first: number; readonly last: number },
    limitMs: number,
  ): DaemonError {
    const what = `blocks ${span.first}-${span.last} of blob ${shortDigest(layer.blobDigest)}`;
    const message = `${what} were not read within ${limitMs} ms`;
    for (let index = span.first; index <= span.last; index += 1) {
      const cause = this.#scheduler.lastError(layer.id, index);
      if (cause !== undefined) return withContext(cause, message, "unavailable");
    }
    return new DaemonError("unavailable", message);
  }
}

function noteSpan(
  order: FetchOrder,
  { first, last }: { readonly first: number; readonly last: number },
): void {
  for (let index = first; index <= last; index += 1) order.add(index);
}

function checkSpan(span: { readonly first: number; readonly last: number }): void {
  if (span.last - span.first >= CALL_BLOCKS_MAX) {
    throw new DaemonError("out-of-range", `over ${CALL_BLOCKS_MAX} blocks asked for at once`);
  }
}
