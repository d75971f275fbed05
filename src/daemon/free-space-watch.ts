/**
 * The cache keeps clear of its reserve when it writes; this looks also while others write: what
 * containers store is on the same disk, and must not find it full of what can be fetched again.
 */
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import type { DiskCache } from "../cache/index.ts";

/** At 500 MB/s the default reserve of 1 GiB lasts two seconds. */
const LOOK_EVERY_MS = 2000;

export class FreeSpaceWatch implements AsyncDisposable {
  readonly #cache: Pick<DiskCache, "giveWay">;
  readonly #clock: Clock;
  readonly #log: Logger;
  #cancelTimer: (() => void) | undefined;
  #looking: Promise<void> = Promise.resolve();
  #isEnded = false;

  constructor(
    cache: Pick<DiskCache, "giveWay">,
    { clock, log }: { readonly clock: Clock; readonly log: Logger },
  ) {
    this.#cache = cache;
    this.#clock = clock;
    this.#log = log;
    this.#schedule();
  }

  #schedule(): void {
    this.#cancelTimer = this.#clock.timer(LOOK_EVERY_MS, () => {
      this.#looking = this.#look();
    });
  }

  /** Never rejects. */
  async #look(): Promise<void> {
    try {
      await this.#cache.giveWay();
    } catch (error) {
      this.#log.warn("free-space-not-watched", { err: error });
    }
    if (!this.#isEnded) this.#schedule();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnded = true;
    this.#cancelTimer?.();
    await this.#looking;
  }
}
