/** Which epochs of an image's tree a request may name. */
import type { Clock } from "../../base/clock.ts";
import type { PositionLookup, TreeEpoch } from "./position.ts";

/** Epochs of one image that are remembered, and for how long after they were the current one. */
const EPOCHS_MAX = 32;
const EPOCH_MS = 5 * 60_000;
/** A child may be behind by all changes of so long: its manager's word may be late or lost. */
const BEHIND_MS = 10_000;
const IMAGES_MAX = 4096;

interface Seen {
  readonly epoch: TreeEpoch;
  lastMs: number;
}

/**
 * `known`: fetch for it. `none`: we are in no tree of the image, so we give what is here and send
 * nothing on. `unknown`: an epoch that is over, or was never ours; refused, so that a child with a
 * stale parent moves on at once.
 */
export type EpochAnswer = "known" | "none" | "unknown";

export class EpochBook {
  readonly #positions: PositionLookup;
  readonly #clock: Clock;
  readonly #seen = new Map<string, Seen[]>();

  constructor(positions: PositionLookup, clock: Clock) {
    this.#positions = positions;
    this.#clock = clock;
  }

  check(image: string, epoch: TreeEpoch): EpochAnswer {
    const current = this.#positions(image)?.epoch;
    const nowMs = this.#clock.nowMs();
    if (current !== undefined) this.#note(image, current, nowMs);
    const seen = this.#seen.get(image) ?? [];
    const isKnown = seen.some(
      (each) => isSame(each.epoch, epoch) && nowMs - each.lastMs <= EPOCH_MS,
    );
    if (isKnown) return "known";
    if (current === undefined) return "none";
    // The child may have heard of the next epoch already, or not yet of ours.
    let oldest = current.counter;
    for (const each of seen) {
      if (nowMs - each.lastMs <= BEHIND_MS) oldest = Math.min(oldest, each.epoch.counter);
    }
    return epoch.counter >= oldest - 1 ? "known" : "unknown";
  }

  #note(image: string, epoch: TreeEpoch, nowMs: number): void {
    const seen = this.#seen.get(image) ?? [];
    const known = seen.find((each) => isSame(each.epoch, epoch));
    if (known !== undefined) {
      known.lastMs = nowMs;
      return;
    }
    seen.push({ epoch, lastMs: nowMs });
    if (seen.length > EPOCHS_MAX) seen.shift();
    this.#seen.delete(image);
    this.#seen.set(image, seen);
    const [oldest] = this.#seen.keys();
    if (this.#seen.size > IMAGES_MAX && oldest !== undefined) this.#seen.delete(oldest);
  }
}

function isSame(one: TreeEpoch, other: TreeEpoch): boolean {
  return one.counter === other.counter && one.manager === other.manager;
}
