/** Work that callers join by key, with progress for each; it goes on when they leave. */
import { SingleFlight } from "../base/single-flight.ts";

type Listener<Progress> = (progress: Progress) => void;

export class SharedWork<Key, Progress, Result> {
  readonly #flights = new SingleFlight<Key, Result>();
  readonly #listeners = new Map<Key, Set<Listener<Progress>>>();

  async run(
    key: Key,
    work: (report: Listener<Progress>) => Promise<Result>,
    options: {
      readonly signal: AbortSignal;
      readonly onProgress?: Listener<Progress> | undefined;
    },
  ): Promise<Result> {
    const listeners = this.#listeners.get(key) ?? new Set<Listener<Progress>>();
    this.#listeners.set(key, listeners);
    const { onProgress } = options;
    if (onProgress !== undefined) listeners.add(onProgress);
    const report: Listener<Progress> = (progress) => {
      for (const listener of this.#listeners.get(key) ?? []) listener(progress);
    };
    try {
      return await this.#flights.run(key, () => work(report), {
        signal: options.signal,
        detached: true,
      });
    } finally {
      if (onProgress !== undefined) listeners.delete(onProgress);
      if (listeners.size === 0 && !this.#flights.has(key)) this.#listeners.delete(key);
    }
  }
}
