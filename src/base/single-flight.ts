/** One execution per key; callers share it, and it is aborted when the last one leaves. */
import { raceAbort, throwIfAborted } from "./abort.ts";
import { DaemonError } from "./errors.ts";

interface Flight<T> {
  readonly promise: Promise<T>;
  readonly controller: AbortController;
  waiters: number;
  isDetached: boolean;
  isSettled: boolean;
}

export class SingleFlight<K, T> {
  readonly #flights = new Map<K, Flight<T>>();

  get size(): number {
    return this.#flights.size;
  }

  has(key: K): boolean {
    return this.#flights.has(key);
  }

  /**
   * Joins the flight of `key`, or starts it. An aborted caller leaves at once; the work itself is
   * aborted only when no caller is left, or never if any of them was `detached`. The work's signal
   * is not aborted after it has settled, so what it returned may go on using it.
   */
  async run(
    key: K,
    work: (signal: AbortSignal) => Promise<T>,
    options: { readonly signal: AbortSignal; readonly detached?: boolean },
  ): Promise<T> {
    throwIfAborted(options.signal);
    const flight = this.#flights.get(key) ?? this.#start(key, work);
    flight.waiters += 1;
    if (options.detached === true) flight.isDetached = true;
    try {
      return await raceAbort(flight.promise, options.signal);
    } finally {
      flight.waiters -= 1;
      if (flight.waiters === 0 && !flight.isDetached && !flight.isSettled) {
        if (this.#flights.get(key) === flight) this.#flights.delete(key);
        flight.controller.abort(new DaemonError("canceled", "nobody waits for this any more"));
      }
    }
  }

  #start(key: K, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const controller = new AbortController();
    const promise = work(controller.signal);
    const flight = { promise, controller, waiters: 0, isDetached: false, isSettled: false };
    this.#flights.set(key, flight);
    const onSettled = (): void => {
      flight.isSettled = true;
      // A flight that everybody left may have been replaced already.
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    // Also handles a failure that nobody is left to be told of.
    promise.then(onSettled, onSettled);
    return flight;
  }
}
