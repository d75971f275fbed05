/** What a source's failure means for the blocks that were asked of it. Pure. */
import { errorCode, RETRYABLE } from "../base/errors.ts";

/**
 * `transient`: the same source may answer later. `corrupt`: it sends wrong bytes. `refused`: it
 * does not have the blob or does not give it to us.
 */
export type FailureKind = "transient" | "corrupt" | "refused";

export function classifyFailure(error: unknown): FailureKind {
  const code = errorCode(error);
  if (code === "data-loss" || code === "out-of-range") return "corrupt";
  // An unexpected exception says nothing about the blob.
  if (RETRYABLE[code] || code === "internal" || code === "canceled") return "transient";
  return "refused";
}

export interface BackoffOptions {
  readonly firstMs: number;
  readonly maxMs: number;
}

export const DEFAULT_BACKOFF: BackoffOptions = { firstMs: 100, maxMs: 5000 };

/** Delay after the n-th failure in a row (1 = the first): doubling, half of it random. */
export function backoffMs(failures: number, uniform: number, options: BackoffOptions): number {
  const whole = Math.min(options.maxMs, options.firstMs * 2 ** Math.min(failures - 1, 30));
  return whole / 2 + (whole / 2) * uniform;
}
