/** One missing block on its way: who waits for it, how urgent it is, what was tried. */
import { raceAbort } from "../base/abort.ts";
import type { DaemonError } from "../base/errors.ts";
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
  /** Wrong bytes so far, by source name. */
  readonly corruptBySource = new Map<string, number>();
  /** Sources that will not be asked again for this block, and why. */
  readonly excluded = new Map<string, DaemonError>();
  lastError: DaemonError | undefined;
  readonly #promise: Promise<BlockOutcome>;
  #resolve: (outcome: BlockOutcome) => void = () => undefined;
  #reject: (error: DaemonError) => void = () => undefined;

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

  /** Waits until the block is there; `onLeft` runs when this was the last one waiting. */
  async wait(signal: AbortSignal, onLeft: (flight: Flight) => void): Promise<BlockOutcome> {
    this.waiters += 1;
    try {
      return await raceAbort(this.#promise, signal);
    } finally {
      this.waiters -= 1;
      if (this.waiters === 0 && this.state !== "settled") onLeft(this);
    }
  }

  succeed(outcome: BlockOutcome): void {
    this.state = "settled";
    this.#resolve(outcome);
  }

  fail(error: DaemonError): void {
    this.state = "settled";
    this.#reject(error);
  }
}
