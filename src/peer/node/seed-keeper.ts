/**
 * When to ask which seeds: often while nobody is known, and now and then those that are no members,
 * so that the two halves of a cluster that have forgotten each other become one again. Pure.
 */
import type { Random } from "../../base/random.ts";
import type { Address } from "../membership/member.ts";
import { keyOf } from "../transport/greeting.ts";

/** Seeds that are no members are asked again after this, ms. */
const INTERVAL_MS = 30_000;
/** A node that has joined nobody asks again after this, ms, doubled each time up to the maximum. */
const ALONE_MS = 1000;
const ALONE_MS_MAX = 15_000;
/** Seeds that are asked at a time. */
const AT_ONCE = 3;

export class SeedKeeper {
  readonly #random: Random;
  #addresses: readonly Address[] = [];
  #keys: ReadonlySet<string> = new Set();
  #aloneMs = ALONE_MS;
  nextMs = Infinity;

  constructor(random: Random) {
    this.#random = random;
  }

  has(address: Address): boolean {
    return this.#keys.has(keyOf(address));
  }

  set(addresses: readonly Address[], nowMs: number): void {
    const keys = new Set(addresses.map(keyOf));
    const isNew = [...keys].some((key) => !this.#keys.has(key));
    this.#addresses = addresses;
    this.#keys = keys;
    if (isNew) this.nextMs = nowMs;
  }

  /** Nobody is known any more: ask soon. */
  hurry(nowMs: number): void {
    if (this.#addresses.length === 0) return;
    this.#aloneMs = ALONE_MS;
    this.nextMs = Math.min(this.nextMs, nowMs + this.#random.next() * ALONE_MS);
  }

  /** Whom to ask now. `isJoined`: views were exchanged, and there are others. */
  due(
    nowMs: number,
    isKnown: (address: Address) => boolean,
    isJoined: boolean,
  ): readonly Address[] {
    if (nowMs < this.nextMs) return [];
    const intervalMs = isJoined ? INTERVAL_MS : this.#aloneMs;
    this.#aloneMs = isJoined ? ALONE_MS : Math.min(2 * this.#aloneMs, ALONE_MS_MAX);
    // Nodes that were cut off together must not come back in step.
    this.nextMs = nowMs + intervalMs * (0.75 + 0.5 * this.#random.next());
    const missing = this.#addresses.filter((address) => !isKnown(address));
    const start = Math.floor(this.#random.next() * missing.length);
    return [...missing.slice(start), ...missing.slice(0, start)].slice(0, AT_ONCE);
  }
}
