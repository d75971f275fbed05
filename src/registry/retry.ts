/** When to try again: jittered exponential backoff, and what Retry-After says. */
import type { Random } from "../base/random.ts";
import { BACKOFF_BASE_MS, BACKOFF_MAX_MS } from "./limits.ts";

/**
 * Waiting time before attempt `attempt` (1 is the first retry): uniform in the upper half of an
 * exponentially growing span, so that clients that failed together do not come back together.
 */
export function backoffMs(attempt: number, random: Random): number {
  const span = Math.min(BACKOFF_MAX_MS, BACKOFF_BASE_MS * 2 ** (attempt - 1));
  return span / 2 + (random.next() * span) / 2;
}

/**
 * Retry-After in milliseconds from now: seconds, or an HTTP date (RFC 9110, section 10.2.3).
 * Undefined when absent or not understood; never negative.
 */
export function retryAfterMs(header: string | undefined, wallNs: bigint): number | undefined {
  if (header === undefined) return undefined;
  const text = header.trim();
  if (/^[0-9]{1,9}$/.test(text)) return Number(text) * 1000;
  // Only a real date: Date.parse accepts much else ("-1" is a year).
  if (!/^[A-Za-z]{3,9},/.test(text)) return undefined;
  const date = Date.parse(text);
  if (Number.isNaN(date)) return undefined;
  return Math.max(0, date - Number(wallNs / 1_000_000n));
}
