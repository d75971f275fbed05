/**
 * After an image has started, fetches the rest of it below every reader and at a capped rate, so
 * that it needs no registry any more. One image at a time; a failure is tried again later.
 */
import { throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { BlockResolver } from "../block/index.ts";
import { fillLayers } from "../cache/index.ts";
import type { DiskCache } from "../cache/index.ts";
import type { DiffId } from "../oci/index.ts";
import type { LayerStore } from "./layer-store.ts";

const RETRY_PAUSE_MS = 30_000;
const TRIES_MAX = 10;
/** One window of blocks; a registry that is away must not hold the queue for ever. */
const WINDOW_LIMIT_MS = 120_000;
/** Layers that wait for their turn. */
const QUEUE_MAX = 8192;

export interface BackgroundFillOptions {
  readonly delayMs: number;
  readonly rateBytesPerSecond: number;
}

export interface BackgroundFillParts {
  readonly clock: Clock;
  readonly log: Logger;
  readonly cache: DiskCache;
  readonly resolver: BlockResolver;
  readonly layers: LayerStore;
}

export class BackgroundFill implements AsyncDisposable {
  readonly #parts: BackgroundFillParts;
  readonly #options: BackgroundFillOptions;
  #queue: DiffId[] = [];
  readonly #seen = new Set<DiffId>();
  #run: { readonly stop: AbortController; readonly done: Promise<void> } | undefined;

  constructor(parts: BackgroundFillParts, options: BackgroundFillOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  /** The layers' turn comes after the configured delay. */
  chainMounted(layers: readonly DiffId[]): void {
    for (const diffId of layers) {
      if (this.#seen.has(diffId) || this.#queue.length >= QUEUE_MAX) continue;
      this.#seen.add(diffId);
      this.#queue.push(diffId);
    }
    if (this.#run !== undefined || this.#queue.length === 0) return;
    const stop = new AbortController();
    const done = this.#fillQueue(stop.signal).finally(() => {
      if (this.#run?.stop === stop) this.#run = undefined;
    });
    this.#run = { stop, done };
  }

  /** Stops filling until the next mount: the cache was cleared on purpose. */
  async cancel(): Promise<void> {
    this.#queue = [];
    this.#seen.clear();
    const run = this.#run;
    this.#run = undefined;
    run?.stop.abort(new DaemonError("canceled", "background fill is stopping"));
    await run?.done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cancel();
  }

  /** Never rejects. */
  async #fillQueue(signal: AbortSignal): Promise<void> {
    try {
      await this.#parts.clock.sleep(this.#options.delayMs, { signal });
      while (this.#queue.length > 0) {
        const diffId = this.#queue.shift();
        if (diffId !== undefined && !(await this.#fill(diffId, signal))) return;
      }
    } catch (error) {
      if (!signal.aborted) this.#parts.log.warn("background-fill-ended", { err: error });
    }
  }

  /** False when the cache is full: what follows would not fit either. */
  async #fill(diffId: DiffId, signal: AbortSignal): Promise<boolean> {
    const { clock, log, layers } = this.#parts;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const { cached } = await layers.openLayer(diffId);
        const { isComplete } = await fillLayers(this.#parts, [cached], {
          rateBytesPerSecond: this.#options.rateBytesPerSecond,
          signal,
          mayEvict: false,
          limitMs: WINDOW_LIMIT_MS,
        });
        log.info(isComplete ? "layer-filled" : "layer-fill-no-room", { diffId });
        return isComplete;
      } catch (error) {
        throwIfAborted(signal);
        log.info("layer-fill-failed", { diffId, attempt, err: error });
        if (attempt >= TRIES_MAX || errorCode(error) === "data-loss") return true;
        await clock.sleep(RETRY_PAUSE_MS, { signal });
      }
    }
  }
}
