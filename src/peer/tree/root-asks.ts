/**
 * Members that ask to read the registry because their root is silent to them, and whether it is to
 * the tree's manager too.
 */
import { ROOT_ASKERS_MAX } from "./limits.ts";

/** Asking again within this time is one asking that lasts. */
const GAP_MS = 1000;
/** For so long a root that was silent counts as away, unless it is out of the tree before. */
const AWAY_MS = 1000;

interface Asking {
  readonly sinceMs: number;
  atMs: number;
}

export class RootAsks {
  /** By boot; the one that asked last at the end. */
  readonly #askers = new Map<string, Asking>();
  #silent: { readonly boot: string; readonly untilMs: number } | undefined;

  /** Since when the member has been asking. */
  note(boot: string, nowMs: number): number {
    const known = this.#askers.get(boot);
    const asking =
      known !== undefined && nowMs - known.atMs < GAP_MS ? known : { sinceMs: nowMs, atMs: nowMs };
    asking.atMs = nowMs;
    this.#askers.delete(boot);
    this.#askers.set(boot, asking);
    const [oldest] = this.#askers.keys();
    if (this.#askers.size > ROOT_ASKERS_MAX && oldest !== undefined) this.#askers.delete(oldest);
    return asking.sinceMs;
  }

  silent(boot: string, nowMs: number): void {
    this.#silent = { boot, untilMs: nowMs + AWAY_MS };
  }

  isSilent(boot: string, nowMs: number): boolean {
    return this.#silent?.boot === boot && nowMs < this.#silent.untilMs;
  }
}
