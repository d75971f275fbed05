/** A counting semaphore whose waiters are served by priority, then in order of arrival. */
import { onAbort, throwIfAborted } from "./abort.ts";
import { assert, DaemonError } from "./errors.ts";

interface Waiter {
  readonly priority: number;
  readonly grant: () => void;
}

export class Semaphore {
  #free: number;
  readonly #waiters: Waiter[] = [];
  readonly #queueMax: number;

  /** `permits` holders at once; beyond `queueMax` waiters acquire is `resource-exhausted`. */
  constructor(permits: number, options: { readonly queueMax: number }) {
    assert(Number.isInteger(permits) && permits > 0, `a semaphore of ${permits} permits`);
    this.#free = permits;
    this.#queueMax = options.queueMax;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  /** Takes a permit; lower `priority` numbers are served first. The result gives it back, once. */
  async acquire(options: {
    readonly signal: AbortSignal;
    readonly priority?: number;
  }): Promise<() => void> {
    throwIfAborted(options.signal);
    if (this.#free > 0) {
      this.#free -= 1;
      return this.#releaser();
    }
    if (this.#waiters.length >= this.#queueMax) {
      throw new DaemonError("resource-exhausted", `queue is full (${this.#queueMax} waiting)`);
    }
    const priority = options.priority ?? 0;
    await new Promise<void>((resolve, reject) => {
      const stopListening = onAbort(options.signal, (reason) => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(reason);
      });
      const waiter: Waiter = {
        priority,
        grant: () => {
          stopListening();
          resolve();
        },
      };
      const index = this.#waiters.findIndex((other) => other.priority > priority);
      this.#waiters.splice(index < 0 ? this.#waiters.length : index, 0, waiter);
    });
    return this.#releaser();
  }

  async run<T>(
    options: { readonly signal: AbortSignal; readonly priority?: number },
    work: () => Promise<T>,
  ): Promise<T> {
    const release = await this.acquire(options);
    try {
      return await work();
    } finally {
      release();
    }
  }

  #releaser(): () => void {
    let held = true;
    return () => {
      if (!held) return;
      held = false;
      const next = this.#waiters.shift();
      if (next === undefined) this.#free += 1;
      else next.grant();
    };
  }
}
