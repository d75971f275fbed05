/** One missing block on its way: who waits for it, how urgent it is, what was tried. */
import { raceAbort } from "../base/abort.ts";
import { DaemonError } from "../base/errors.ts";
import { ArrivingBlob } from "./arriving-blob.ts";
import type { FetchPriority } from "./block-source.ts";

/** A block is kept in the store, or (no room there) handed over as bytes. */
export type BlockOutcome =
  { readonly isStored: true } | { readonly isStored: false; readonly bytes: Uint8Array };

/**
 * `queued`: waits for a slot. `running`: part of a request. `finishing`: its blob bytes have
 * arrived. `settled`: done, failed or left by everybody.
 */
export type FlightState = "queued" | "running" | "finishing" | "settled";

export class Flight {
  readonly index: number;
  priority: FetchPriority;
  state: FlightState = "queued";
  waiters = 0;
  /** Somebody here wants the block decoded and kept; else it is only passed on to other nodes. */
  isKept = false;
  /** Wrong bytes so far, by source name. */
  readonly corruptBySource = new Map<string, number>();
  /** Sources that will not be asked again for this block, and why. */
  readonly excluded = new Map<string, DaemonError>();
  /** Sources that have passed, and until when they are not asked again (ms). */
  readonly passedUntilMs = new Map<string, number>();
  lastError: DaemonError | undefined;
  readonly #promise: Promise<BlockOutcome>;
  #resolve: (outcome: BlockOutcome) => void = () => undefined;
  #reject: (error: DaemonError) => void = () => undefined;
  #blob: ArrivingBlob | undefined;

  constructor(index: number, priority: FetchPriority) {
    this.index = index;
    this.priority = priority;
    this.#promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Everybody may have left.
    this.#promise.catch(() => undefined);
  }

  /** The block's blob bytes as they arrive. */
  arriving(blobLength: number): ArrivingBlob {
    this.#blob ??= new ArrivingBlob(blobLength);
    return this.#blob;
  }

  /** Waits until the block is there; `onLeft` runs when this was the last one waiting. */
  async wait(signal: AbortSignal, onLeft: (flight: Flight) => void): Promise<BlockOutcome> {
    const leave = this.join(onLeft);
    try {
      return await raceAbort(this.#promise, signal);
    } finally {
      leave();
    }
  }

  /** One more waits, until the result is called. */
  join(onLeft: (flight: Flight) => void): () => void {
    this.waiters += 1;
    return () => {
      this.waiters -= 1;
      if (this.waiters === 0 && this.state !== "settled") onLeft(this);
    };
  }

  /** The blob bytes are verified: other nodes may have them. */
  deliver(blobBytes: Uint8Array): void {
    this.#blob?.verified(blobBytes);
  }

  /** What came so far is given to nobody any more: it will come again. */
  restart(): void {
    this.#blob?.restart();
  }

  succeed(outcome: BlockOutcome): void {
    this.state = "settled";
    this.#resolve(outcome);
  }

  /** Delivered, and wanted by nobody here. */
  passedOn(): void {
    this.state = "settled";
    this.#reject(new DaemonError("internal", "a block that was only passed on"));
  }

  fail(error: DaemonError): void {
    this.state = "settled";
    this.#blob?.fail(error);
    this.#reject(error);
  }
}
