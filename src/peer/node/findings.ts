/** What is wrong between members, in words for an operator: what, with whom, how often. */
import type { Logger } from "../../base/log.ts";

/** Each has its paragraph in docs/peers.md. */
export type FindingKind =
  /** Packets come from there, sealed with a key that is not in our ring. */
  | "wrong-key"
  /** Somebody there says that it does not have the key that we seal with. */
  | "key-unknown-there"
  /** Two live nodes have one name. */
  | "duplicate-name"
  /** Its wall clock and ours are far apart. */
  | "clock-skew"
  /** Streams reach it, packets do not. */
  | "udp-blocked"
  /** Packets reach it, streams do not. */
  | "tcp-blocked"
  /** Nobody answers at a seed's address. */
  | "seed-silent"
  /** A seed's name or file cannot be read. */
  | "seed-unresolved"
  /** It speaks no wire version that we speak. */
  | "other-version"
  /** The key file cannot be read, or others can read it. */
  | "key-file"
  /** This machine is a copy of another, or was resumed: a new boot id was taken. */
  | "cloned"
  /** MEMBERS_MAX is reached. */
  | "members-full";

export interface Finding {
  readonly kind: FindingKind;
  /** A member's id, else an address or a file. */
  readonly who: string;
  readonly detail: string;
  readonly count: number;
  /** When it was last seen, ms ago. */
  readonly ageMs: number;
}

/**
 * Findings of one kind that are kept; the one that was renewed longest ago goes first. Strangers
 * can bring some kinds about from as many addresses as they like to forge.
 */
const FINDINGS_OF_KIND_MAX = 64;
/** One line of the log for each kind in this time, ms. */
const LOG_INTERVAL_MS = 1000;
/** One that is not seen again for so long is over, ms. */
const FINDING_MS = 300_000;

interface Kept {
  readonly kind: FindingKind;
  readonly who: string;
  detail: string;
  count: number;
  lastMs: number;
}

export class Findings {
  readonly #log: Logger;
  /** By kind and then by whom; the one that was renewed longest ago first. */
  readonly #kept = new Map<FindingKind, Map<string, Kept>>();
  readonly #logged = new Map<FindingKind, number>();

  constructor(log: Logger) {
    this.#log = log;
  }

  note(kind: FindingKind, who: string, detail: string, nowMs: number): void {
    const kept = this.#kept.get(kind) ?? new Map<string, Kept>();
    this.#kept.set(kind, kept);
    const known = kept.get(who);
    const isNew = known === undefined || nowMs - known.lastMs > FINDING_MS;
    if (isNew && nowMs - (this.#logged.get(kind) ?? -Infinity) >= LOG_INTERVAL_MS) {
      this.#logged.set(kind, nowMs);
      this.#log.warn("peer-finding", { finding: kind, who, detail });
    }
    const count = isNew ? 1 : known.count + 1;
    kept.delete(who);
    kept.set(who, { kind, who, detail, count, lastMs: nowMs });
    if (kept.size <= FINDINGS_OF_KIND_MAX) return;
    const [oldest = ""] = kept.keys();
    kept.delete(oldest);
  }

  /** It is well again. */
  clear(kind: FindingKind, who: string): void {
    this.#kept.get(kind)?.delete(who);
  }

  list(nowMs: number): readonly Finding[] {
    const findings: Finding[] = [];
    for (const kept of this.#kept.values()) {
      for (const { lastMs, ...rest } of kept.values()) {
        if (nowMs - lastMs <= FINDING_MS) findings.push({ ...rest, ageMs: nowMs - lastMs });
      }
    }
    return findings;
  }
}
