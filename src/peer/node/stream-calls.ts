/** Streams to others: some at a time, each for a bounded time, none awaited by the protocol. */
import { onAbort } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { Streams } from "./streams.ts";

/** At once; one more is left out, as if it had failed. */
const CALLS_MAX = 16;

export interface StreamResult<T> {
  readonly value?: T;
  readonly error?: unknown;
}

export class StreamCalls implements Disposable {
  readonly #streams: Streams;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #running = new Set<AbortController>();
  #isDisposed = false;

  constructor(streams: Streams, clock: Clock, { timeoutMs }: { readonly timeoutMs: number }) {
    this.#streams = streams;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  pushPull(
    to: PeerRef,
    records: Uint8Array,
    done: (result: StreamResult<Uint8Array>) => void,
  ): void {
    this.#run((signal) => this.#streams.pushPull(to, records, { signal }), done);
  }

  probe(to: PeerRef, done: (result: StreamResult<true>) => void): void {
    this.#run(async (signal) => {
      await this.#streams.probe(to, { signal });
      return true as const;
    }, done);
  }

  /** Nothing calls back any more. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    for (const controller of this.#running) {
      controller.abort(new DaemonError("canceled", "the node stops"));
    }
  }

  #run<T>(
    call: (signal: AbortSignal) => Promise<T>,
    done: (result: StreamResult<T>) => void,
  ): void {
    if (this.#isDisposed) return;
    if (this.#running.size >= CALLS_MAX) {
      done({ error: new DaemonError("resource-exhausted", `${CALLS_MAX} streams are under way`) });
      return;
    }
    const controller = new AbortController();
    this.#running.add(controller);
    const stop = this.#clock.timer(this.#timeoutMs, () => {
      const message = `no answer over a stream in ${this.#timeoutMs} ms`;
      controller.abort(new DaemonError("deadline-exceeded", message));
    });
    const end = (result: StreamResult<T>): void => {
      stop();
      this.#running.delete(controller);
      if (!this.#isDisposed) done(result);
    };
    // A call that ignores its signal is given up all the same.
    const aborted = new Promise<never>((_resolve, reject) => {
      onAbort(controller.signal, reject);
    });
    Promise.race([call(controller.signal), aborted]).then(
      (value) => {
        end({ value });
      },
      (error: unknown) => {
        end({ error });
      },
    );
  }
}
