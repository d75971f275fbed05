/** How eager function trees are. Each field says what it means and what changing it costs. */
import { DaemonError } from "../../base/errors.ts";

export interface TreeConfig {
  /**
   * Each member reports to the manager and its deputy once per interval, per image: two packets out
   * and one in. Shorter finds dead members and repairs lost packets sooner.
   */
  readonly heartbeatMs: number;
  /** After how long without an answer a join goes to others; doubled after every second try. */
  readonly joinRetryMs: number;
  /**
   * How long a manager may be silent before its deputy takes its place. Below the longest pause of
   * a live one (a busy event loop) trees change their manager without need; no parent changes then.
   */
  readonly managerSilenceMs: number;
  /** How long a member of a tree may be silent, pinged five times, before it is taken out. */
  readonly memberSilenceMs: number;
  /** After how long without a heartbeat a member is pinged. */
  readonly memberTimeoutMs: number;
  /**
   * How long a member has to be alive to be made a manager; seeds are at once. Long enough for most
   * views to have heard of it: a burst of newcomers then moves no tree.
   */
  readonly settledMs: number;
  /** After how long without an answer of anybody a member is alone, and manages its own trees. */
  readonly aloneMs: number;
  /** How often a position is repeated until a heartbeat shows it. */
  readonly pushMs: number;
  /** Trees with traffic that one member feeds others in, before somebody else is preferred. */
  readonly interiorMax: number;
  /** For how long a tree counts as one with traffic after its last. */
  readonly trafficMs: number;
  /** An interior member below this share of the median rate of its peers is slow. */
  readonly slowShare: number;
  /** Heartbeats in a row for which it has to be slow. */
  readonly slowHeartbeats: number;
  /** For how long a member that was moved is not moved again: swaps must not swing. */
  readonly restMs: number;
  /** For how long a liar stays a leaf, and accusations count. */
  readonly convictionMs: number;
  /** Accusations of one member that are acted on within `convictionMs`. */
  readonly accusationsMax: number;
  /**
   * How long a root may be silent, pinged four times, before other members may read the registry
   * in its place. Shorter shortens what readers wait when a root vanishes; below the longest pause
   * of a live root the registry is read twice.
   */
  readonly rootSilenceMs: number;
  /** After asking for so long a member may read it though the root answers the manager. */
  readonly rootPatienceMs: number;
  /** What members other than the root may read from the registry, per tree. */
  readonly registryBytesPerSecond: number;
  readonly registryBurstBytes: number;
}

/** One data centre. */
const LAN: TreeConfig = {
  heartbeatMs: 1000,
  joinRetryMs: 200,
  managerSilenceMs: 200,
  memberSilenceMs: 600,
  memberTimeoutMs: 5000,
  settledMs: 30_000,
  aloneMs: 3000,
  pushMs: 200,
  interiorMax: 20,
  trafficMs: 60_000,
  slowShare: 0.25,
  slowHeartbeats: 5,
  restMs: 60_000,
  convictionMs: 600_000,
  accusationsMax: 3,
  rootSilenceMs: 100,
  rootPatienceMs: 3000,
  registryBytesPerSecond: 512 * 1024,
  registryBurstBytes: 4 * 1024 * 1024,
};

export const TREE_PRESETS = { lan: LAN } as const;

/** Throws `invalid-argument` naming the field and what it has to be. */
export function checkTreeConfig(config: TreeConfig): TreeConfig {
  for (const [name, value] of Object.entries(config) as readonly (readonly [string, number])[]) {
    if (!Number.isFinite(value) || value < 0) {
      throw new DaemonError("invalid-argument", `${name} is ${value}; it has to be 0 or more`);
    }
  }
  for (const name of ["heartbeatMs", "joinRetryMs", "managerSilenceMs", "pushMs"] as const) {
    if (config[name] < 1) throw new DaemonError("invalid-argument", `${name} has to be 1 or more`);
  }
  if (config.memberTimeoutMs <= config.heartbeatMs) {
    throw new DaemonError("invalid-argument", "memberTimeoutMs has to be above heartbeatMs");
  }
  return config;
}

/** How long a manager that knows nothing hears the members before it makes anybody root. */
export function gatherMs(config: TreeConfig): number {
  return 2 * config.heartbeatMs + config.pushMs;
}

/** It waits longer, so many times, for members that have not been heard. */
export const GATHERS_MAX = 3;

/** How long a member waits for its manager before it pings it. */
export function lateManagerMs(config: TreeConfig): number {
  return 1.5 * config.heartbeatMs;
}

/** How long a member waits for its manager before it asks others. */
export function lostManagerMs(config: TreeConfig): number {
  return 2.5 * config.heartbeatMs;
}
