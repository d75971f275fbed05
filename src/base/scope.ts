/** A stack of things to undo: what AsyncDisposableStack will be (absent in Node 20). */
import { DaemonError } from "./errors.ts";

type Cleanup = () => Promise<void> | void;

/**
 * Runs its cleanups in reverse order, once, all of them even when some fail; the failures are
 * then thrown together as one AggregateError. Safe to dispose twice.
 */
export class Scope implements AsyncDisposable {
  #cleanups: Cleanup[] = [];
  #disposed: Promise<void> | undefined;

  /** Registers an owner and returns it. */
  use<T extends AsyncDisposable>(owner: T): T {
    this.defer(() => Promise.resolve(owner[Symbol.asyncDispose]()));
    return owner;
  }

  defer(cleanup: Cleanup): void {
    if (this.#disposed !== undefined) {
      throw new DaemonError("failed-precondition", "scope is already disposed");
    }
    this.#cleanups.push(cleanup);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed ??= this.#run();
    await this.#disposed;
  }

  async #run(): Promise<void> {
    const failures: unknown[] = [];
    for (const cleanup of this.#cleanups.reverse()) {
      try {
        await cleanup();
      } catch (error) {
        failures.push(error);
      }
    }
    this.#cleanups = [];
    if (failures.length > 0) throw new AggregateError(failures, "clean-up failed");
  }
}
