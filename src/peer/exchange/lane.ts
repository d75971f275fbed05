/**
 * How many requests of one kind go to one peer at once. Two have bytes flowing: more would delay
 * each other (64 parallel bulk ranges put a reader's p50 at 380 ms, two at 12 to 17). One that is
 * kept waiting by ticks lends its place to the next: it holds a connection and nothing else.
 */
import { onAbort, throwIfAborted } from "../../base/abort.ts";
import { DaemonError } from "../../base/errors.ts";
import type { FetchPriority } from "../../block/index.ts";
import { LANE_FLOWING_MAX, LANE_QUEUE_MAX, LANE_REQUESTS_MAX } from "./limits.ts";

/** `demand`: a reader waits. `bulk`: nobody does. `control`: small and quick. */
export type LaneName = "demand" | "bulk" | "control";

export interface LaneSlot {
  /** It waits: another may send meanwhile. */
  park(): void;
  /** Bytes flow again; more than two may have them flowing then. */
  unpark(): void;
  release(): void;
}

interface Waiter {
  readonly priority: FetchPriority;
  readonly grant: () => void;
}

export class Lane {
  #flowing = 0;
  #parked = 0;
  readonly #queue: Waiter[] = [];

  get counts(): { readonly flowing: number; readonly parked: number; readonly queued: number } {
    return { flowing: this.#flowing, parked: this.#parked, queued: this.#queue.length };
  }

  /** `resource-exhausted` when too many wait already. */
  async enter(
    priority: FetchPriority,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<LaneSlot> {
    throwIfAborted(signal);
    if (!this.#hasRoom || this.#queue.length > 0) await this.#wait(priority, signal);
    else this.#flowing += 1;
    return this.#slot();
  }

  get #hasRoom(): boolean {
    return this.#flowing < LANE_FLOWING_MAX && this.#flowing + this.#parked < LANE_REQUESTS_MAX;
  }

  async #wait(priority: FetchPriority, signal: AbortSignal): Promise<void> {
    if (this.#queue.length >= LANE_QUEUE_MAX) {
      throw new DaemonError("resource-exhausted", "too many requests wait for one peer");
    }
    await new Promise<void>((resolve, reject) => {
      const stop = onAbort(signal, (reason) => {
        this.#queue.splice(this.#queue.indexOf(waiter), 1);
        reject(reason);
      });
      const waiter: Waiter = {
        priority,
        grant: () => {
          stop();
          resolve();
        },
      };
      const index = this.#queue.findIndex((other) => other.priority > priority);
      this.#queue.splice(index < 0 ? this.#queue.length : index, 0, waiter);
    });
  }

  #grant(): void {
    while (this.#hasRoom) {
      const next = this.#queue.shift();
      if (next === undefined) return;
      this.#flowing += 1;
      next.grant();
    }
  }

  #slot(): LaneSlot {
    let state: "flowing" | "parked" | "released" = "flowing";
    return {
      park: () => {
        if (state !== "flowing") return;
        state = "parked";
        this.#flowing -= 1;
        this.#parked += 1;
        this.#grant();
      },
      unpark: () => {
        if (state !== "parked") return;
        state = "flowing";
        this.#parked -= 1;
        this.#flowing += 1;
      },
      release: () => {
        if (state === "flowing") this.#flowing -= 1;
        if (state === "parked") this.#parked -= 1;
        if (state === "released") return;
        state = "released";
        this.#grant();
      },
    };
  }
}
