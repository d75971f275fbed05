/** The arithmetic of SWIM and Lifeguard: how long, how often, how many. Pure. */
import type { MembershipConfig } from "./config.ts";

/** Below this many members push/pull is not stretched. Source: memberlist util.go. */
const PUSH_PULL_SCALE_MEMBERS = 32;

/** How long a member stays suspect at least, ms. Source: SWIM 4.2, Lifeguard 4.2. */
export function suspicionTimeoutMs(config: MembershipConfig, members: number): number {
  return config.suspicionMult * Math.max(1, Math.log10(members)) * config.probeIntervalMs;
}

/**
 * Confirmations that bring a suspicion down to its minimum. With too few members to give them none
 * is waited for. The 2: the suspecting and the suspected member. Source: Lifeguard 4.2.
 */
export function confirmationsNeeded(config: MembershipConfig, members: number): number {
  const needed = config.suspicionMult - 2;
  return members - 2 < needed ? 0 : Math.max(0, needed);
}

/**
 * How long a suspicion lasts from its start, ms: from `maxMs` down to `minMs` with the logarithm of
 * the confirmations, so that the first ones count most. Source: Lifeguard 4.2, formula for
 * SuspicionTimeout.
 */
export function suspicionLastsMs(
  confirmations: number,
  needed: number,
  bounds: { readonly minMs: number; readonly maxMs: number },
): number {
  const { minMs, maxMs } = bounds;
  if (needed < 1) return minMs;
  const share = Math.log(confirmations + 1) / Math.log(needed + 1);
  return Math.max(minMs, Math.floor(maxMs - share * (maxMs - minMs)));
}

/** How often each member sends one message. Source: SWIM 4.1 (λ log n). */
export function retransmitLimit(retransmitMult: number, members: number): number {
  return retransmitMult * Math.ceil(Math.log10(members + 1));
}

/** The interval between two push/pulls of one member, ms: grows with what one of them costs. */
export function pushPullIntervalMs(intervalMs: number, members: number): number {
  if (members <= PUSH_PULL_SCALE_MEMBERS) return intervalMs;
  const doublings = Math.ceil(Math.log2(members) - Math.log2(PUSH_PULL_SCALE_MEMBERS));
  return intervalMs * (doublings + 1);
}
