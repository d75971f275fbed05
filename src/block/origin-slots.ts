/**
 * How many requests each origin gets at once. A slot is for bytes that flow: a request gone
 * silent is parked, which gives its slot to others, so that one stalled blob starves nobody.
 */
import type { FetchPriority } from "./block-source.ts";
import { ACTIVE_BYTES_MAX, ORIGIN_ACTIVE_MAX, ORIGIN_PARKED_MAX } from "./limits.ts";

interface Origin {
  /** Requests with bytes flowing, by priority. */
  readonly active: [number, number, number, number];
  parked: number;
}

export interface OriginSlotsOptions {
  readonly activeMax: readonly [number, number, number, number];
  readonly parkedMax: number;
  readonly activeBytesMax: number;
}

export const DEFAULT_ORIGIN_SLOTS: OriginSlotsOptions = {
  activeMax: ORIGIN_ACTIVE_MAX,
  parkedMax: ORIGIN_PARKED_MAX,
  activeBytesMax: ACTIVE_BYTES_MAX,
};

export class OriginSlots {
  readonly #options: OriginSlotsOptions;
  readonly #origins = new Map<string, Origin>();
  #activeBytes = 0;

  constructor(options: OriginSlotsOptions) {
    this.#options = options;
  }

  /** Requests with bytes flowing and parked ones, of all origins. */
  get counts(): { active: number; parked: number } {
    let active = 0;
    let parked = 0;
    for (const origin of this.#origins.values()) {
      active += total(origin);
      parked += origin.parked;
    }
    return { active, parked };
  }

  canStart(name: string, priority: FetchPriority): boolean {
    const origin = this.#origins.get(name);
    if (origin === undefined) return true;
    if (origin.parked >= this.#options.parkedMax) return false;
    // Fill is below every reader: it starts nothing while one is being served.
    if (priority === 3 && origin.active[0] > 0) return false;
    return total(origin) < this.#options.activeMax[priority];
  }

  hasBytesFor(bytes: number): boolean {
    return this.#activeBytes === 0 || this.#activeBytes + bytes <= this.#options.activeBytesMax;
  }

  take(name: string, priority: FetchPriority, bytes: number): OriginSlot {
    const origin = this.#origins.get(name) ?? { active: [0, 0, 0, 0], parked: 0 };
    this.#origins.set(name, origin);
    origin.active[priority] += 1;
    this.#activeBytes += bytes;
    return this.#slot({ name, origin, priority, bytes });
  }

  #slot(held: {
    readonly name: string;
    readonly origin: Origin;
    priority: FetchPriority;
    readonly bytes: number;
  }): OriginSlot {
    let state: "active" | "parked" | "released" = "active";
    const leave = (): void => {
      if (state === "active") {
        held.origin.active[held.priority] -= 1;
        this.#activeBytes -= held.bytes;
      } else if (state === "parked") {
        held.origin.parked -= 1;
      }
    };
    return {
      park: () => {
        if (state !== "active") return;
        leave();
        state = "parked";
        held.origin.parked += 1;
      },
      unpark: () => {
        if (state !== "parked") return;
        leave();
        state = "active";
        held.origin.active[held.priority] += 1;
        this.#activeBytes += held.bytes;
      },
      setPriority: (priority) => {
        if (state === "active") {
          held.origin.active[held.priority] -= 1;
          held.origin.active[priority] += 1;
        }
        held.priority = priority;
      },
      release: () => {
        leave();
        state = "released";
        const isIdle = total(held.origin) === 0 && held.origin.parked === 0;
        if (isIdle && this.#origins.get(held.name) === held.origin) {
          this.#origins.delete(held.name);
        }
      },
    };
  }
}

export interface OriginSlot {
  /** The request went silent: others may use its slot. */
  park(): void;
  /** Bytes flow again; the origin may be over its limit until somebody ends. */
  unpark(): void;
  setPriority(priority: FetchPriority): void;
  /** Once or more. */
  release(): void;
}

function total(origin: Origin): number {
  return origin.active[0] + origin.active[1] + origin.active[2] + origin.active[3];
}
