/** Requests for registry tokens that wait for the tree's answer. */
import { onAbort, throwIfAborted } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";

/** More are refused at once. */
const WAITS_MAX = 1024;
/** A manager answers in a round trip; its deputy after a few hundred ms more. */
const WAIT_MS_MAX = 3000;

export class TokenWaits {
  readonly #clock: Clock;
  readonly #waits = new Map<number, (isGranted: boolean) => void>();
  #lastId = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `ask` is given the request's id. */
  async wait(
    ask: (id: number) => void,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<boolean> {
    throwIfAborted(signal);
    if (this.#waits.size >= WAITS_MAX) {
      throw new DaemonError("resource-exhausted", `${WAITS_MAX} wait for registry tokens`);
    }
    this.#lastId = (this.#lastId + 1) % 2 ** 32;
    const id = this.#lastId;
    let end = (): void => undefined;
    try {
      return await new Promise<boolean>((resolve, reject) => {
        this.#waits.set(id, resolve);
        const stopListening = onAbort(signal, reject);
        const stopTimer = this.#clock.timer(WAIT_MS_MAX, () => {
          const message = `no answer on a registry token in ${WAIT_MS_MAX} ms`;
          reject(new DaemonError("deadline-exceeded", message));
        });
        end = () => {
          stopListening();
          stopTimer();
        };
        ask(id);
      });
    } finally {
      end();
      this.#waits.delete(id);
    }
  }

  answer(id: number, isGranted: boolean): void {
    this.#waits.get(id)?.(isGranted);
  }
}
