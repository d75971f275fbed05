/**
 * How eager the protocol is. Each field says what it means, the formula it enters, and what
 * changing it costs. The values of `lan` are those that memberlist's users have run for ten years.
 */
import { DaemonError } from "../../base/errors.ts";

export interface MembershipConfig {
  /**
   * One member is probed per interval. A failure is first noticed after about one interval, by
   * somebody, whatever the cluster's size (SWIM 3.1). Halving it doubles the probe packets: two per
   * member and interval.
   */
  readonly probeIntervalMs: number;
  /**
   * How long to wait for an ack before others are asked to probe. Set it to the 99th percentile of
   * the network's round trip; lower costs indirect probes, higher delays them. Must be below
   * `probeIntervalMs`. Both are multiplied by 1 + the local health score, see `awarenessMax`.
   */
  readonly probeTimeoutMs: number;
  /**
   * Members that are asked to probe in our stead. More tolerate more loss: with packet loss p a
   * live member fails a whole probe with about (2p)·(4p)^n. 0 disables indirect probes.
   */
  readonly indirectChecks: number;
  /**
   * Suspicion lasts `suspicionMult · max(1, log10(n)) · probeIntervalMs` at least, when enough
   * others confirm. Higher: fewer false deaths, later true ones. `suspicionMult - 2` confirmations
   * count as enough (Lifeguard 4.2).
   */
  readonly suspicionMult: number;
  /**
   * Suspicion lasts this many times longer when nobody confirms: then it is more likely that we
   * are the sick one (Lifeguard 4.2).
   */
  readonly suspicionMaxTimeoutMult: number;
  /**
   * A message is sent `retransmitMult · ceil(log10(n + 1))` times by each member. Higher: fewer
   * members miss it before the next push/pull, more bytes.
   */
  readonly retransmitMult: number;
  /**
   * Messages that found no probe to ride on go to `gossipNodes` members per interval. A message
   * reaches n members in about log(n) / log(gossipNodes + 1) intervals. 0 disables gossip; then
   * only probes carry messages.
   */
  readonly gossipIntervalMs: number;
  readonly gossipNodes: number;
  /** How long a dead member is still gossiped to, so that it hears of its death and refutes it. */
  readonly gossipToTheDeadMs: number;
  /**
   * A whole view is exchanged with one member per interval, over a stream. Stretched by
   * `ceil(log2(n) - log2(32)) + 1` above 32 members: a view of n members is n records long. What
   * gossip missed is repaired after a few intervals. 0 disables it.
   */
  readonly pushPullIntervalMs: number;
  /**
   * The local health score goes from 0 to this less one; probe interval and timeout are multiplied
   * by score + 1 (Lifeguard 4.1). 1 disables it.
   */
  readonly awarenessMax: number;
  /** A push/pull with one dead member per interval: heals a partition. 0 disables it. */
  readonly reconnectIntervalMs: number;
  /** A dead member is forgotten after this; until then it can be reconnected to. */
  readonly reconnectTimeoutMs: number;
  /**
   * How long a dead member's id is kept from another address, so that two that were given the same
   * id do not take it from each other whenever one falters. An id that left is free at once.
   */
  readonly deadReclaimMs: number;
}

/** One data centre: loss below a percent, round trips below 10 ms. */
const LAN: MembershipConfig = {
  probeIntervalMs: 1000,
  probeTimeoutMs: 500,
  indirectChecks: 3,
  suspicionMult: 4,
  suspicionMaxTimeoutMult: 6,
  retransmitMult: 4,
  gossipIntervalMs: 200,
  gossipNodes: 3,
  gossipToTheDeadMs: 30_000,
  pushPullIntervalMs: 30_000,
  awarenessMax: 8,
  reconnectIntervalMs: 30_000,
  reconnectTimeoutMs: 24 * 3_600_000,
  deadReclaimMs: 30_000,
};

/** One machine (tests, demos): nothing is lost and nothing is far, so everything may be hasty. */
const LOCAL: MembershipConfig = {
  ...LAN,
  probeTimeoutMs: 200,
  indirectChecks: 1,
  suspicionMult: 3,
  retransmitMult: 2,
  gossipIntervalMs: 100,
  gossipToTheDeadMs: 15_000,
  pushPullIntervalMs: 15_000,
  reconnectIntervalMs: 5000,
  deadReclaimMs: 5000,
};

export const MEMBERSHIP_PRESETS = { lan: LAN, local: LOCAL } as const;
export type MembershipPreset = keyof typeof MEMBERSHIP_PRESETS;

/** Throws `invalid-argument` naming the field and what it has to be. */
export function checkConfig(config: MembershipConfig): MembershipConfig {
  for (const [name, value] of Object.entries(config) as readonly (readonly [string, number])[]) {
    if (!Number.isFinite(value) || value < 0) {
      throw new DaemonError("invalid-argument", `${name} is ${value}; it has to be 0 or more`);
    }
  }
  const rules: readonly (readonly [boolean, string])[] = [
    [config.probeIntervalMs > 0, "probeIntervalMs has to be more than 0"],
    [
      config.probeTimeoutMs < config.probeIntervalMs,
      "probeTimeoutMs has to be below probeIntervalMs",
    ],
    [config.suspicionMult >= 1, "suspicionMult has to be 1 or more"],
    [config.suspicionMaxTimeoutMult >= 1, "suspicionMaxTimeoutMult has to be 1 or more"],
    [config.awarenessMax >= 1, "awarenessMax has to be 1 or more"],
  ];
  for (const [holds, message] of rules) {
    if (!holds) throw new DaemonError("invalid-argument", message);
  }
  return config;
}
