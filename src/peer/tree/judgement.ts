/**
 * Who has to move within a tree: members that are far slower than their peers, that their children
 * cannot reach, or that sent wrong bytes. They become leaves; nobody is thrown out on hearsay.
 */
import type { TreeConfig } from "./config.ts";
import { COMPLAINTS_MAX } from "./limits.ts";
import type { ManagedTree } from "./managed-tree.ts";
import type { ComplaintMessage, ComplaintReason } from "./messages.ts";
import type { TreeRecord } from "./tree-record.ts";

/** Why somebody was moved. */
export type MoveReason = "slow" | "unreachable" | "wrong-bytes" | "left-out";

export interface Move {
  readonly id: string;
  readonly reason: MoveReason;
  /** Whose position has changed. */
  readonly affected: readonly string[];
}

interface Complaint {
  readonly accuser: string;
  readonly about: string;
  readonly reason: ComplaintReason;
  /** Since when it has been said again and again. */
  sinceMs: number;
  atMs: number;
  /** Whether somebody was moved for it. */
  isActedOn: boolean;
}

/** Rates of interior members below which nobody is called slow: a median of two says nothing. */
const RATED_MIN = 3;
/** How many have to say so before a member is moved for what only others can see. */
const ACCUSERS_NEEDED = 2;
/** Complaints of silence with less between them are one that lasts. */
const SILENCE_MS = 3000;
/** For how long members have to find another silent: whoever is only busy answers meanwhile. */
const SILENCE_LASTS_MS = 3000;

export class Judgement {
  readonly #tree: ManagedTree;
  readonly #config: TreeConfig;
  /** In the order of coming. */
  readonly #complaints = new Map<string, Complaint>();

  constructor(tree: ManagedTree, config: TreeConfig) {
    this.#tree = tree;
    this.#config = config;
  }

  /** Of what its children say and the manager cannot see. Undefined: nobody is moved. */
  complain(message: ComplaintMessage, nowMs: number): Move | undefined {
    const { accuser, about, reason } = message;
    const accused = this.#tree.get(about);
    if (accused === undefined || this.#tree.get(accuser) === undefined || accuser === about) {
      return undefined;
    }
    const complaint = this.#note(message, nowMs);
    const accusers = this.#accusers(about, reason, nowMs);
    if (reason === "silent") return this.#judgeSilent(accused, accusers, nowMs);
    if (accusers.length >= ACCUSERS_NEEDED) {
      accused.barredUntilMs = nowMs + this.#config.convictionMs;
      return this.#toLeaf(accused, "wrong-bytes", nowMs);
    }
    if (complaint.isActedOn || !this.#mayAccuse(accuser, nowMs)) return undefined;
    const move = this.#separate(accuser, accused, nowMs);
    complaint.isActedOn = move !== undefined;
    return move;
  }

  /** At every heartbeat. */
  sweep(nowMs: number): Move | undefined {
    const rated: TreeRecord[] = [];
    for (const record of this.#tree.records()) {
      if (record.barredUntilMs > nowMs) {
        const move = this.#toLeaf(record, "wrong-bytes", nowMs);
        if (move !== undefined) return move;
      }
      if (record.bytesPerSecond > 0 && this.#tree.childrenOf(record.ref.id) > 0) rated.push(record);
      else record.slowFor = 0;
    }
    if (rated.length < RATED_MIN) return undefined;
    rated.sort((one, other) => one.bytesPerSecond - other.bytesPerSecond);
    const median = rated[rated.length >> 1]?.bytesPerSecond ?? 0;
    for (const record of rated) {
      const isSlow = record.bytesPerSecond < this.#config.slowShare * median;
      record.slowFor = isSlow ? record.slowFor + 1 : 0;
    }
    const slow = rated.find(({ slowFor }) => slowFor >= this.#config.slowHeartbeats);
    if (slow === undefined || nowMs - slow.movedMs < this.#config.restMs) return undefined;
    return this.#toLeaf(slow, "slow", nowMs);
  }

  #note({ accuser, about, reason }: ComplaintMessage, nowMs: number): Complaint {
    const key = `${reason} ${accuser} ${about}`;
    const known = this.#complaints.get(key);
    if (known !== undefined && nowMs - known.atMs < this.#config.convictionMs) {
      if (nowMs - known.atMs > SILENCE_MS) known.sinceMs = nowMs;
      known.atMs = nowMs;
      return known;
    }
    const complaint = { accuser, about, reason, sinceMs: nowMs, atMs: nowMs, isActedOn: false };
    this.#complaints.delete(key);
    this.#complaints.set(key, complaint);
    const [oldest] = this.#complaints.keys();
    if (this.#complaints.size > COMPLAINTS_MAX && oldest !== undefined) {
      this.#complaints.delete(oldest);
    }
    return complaint;
  }

  #accusers(about: string, reason: ComplaintReason, nowMs: number): readonly string[] {
    const withinMs = reason === "silent" ? SILENCE_MS : this.#config.convictionMs;
    return [...this.#complaints.values()]
      .filter((one) => one.about === about && one.reason === reason)
      .filter(({ atMs }) => nowMs - atMs < withinMs)
      .filter((one) => reason !== "silent" || one.atMs - one.sinceMs >= SILENCE_LASTS_MS)
      .map(({ accuser }) => accuser);
  }

  /** The manager reaches it (else it is taken out), but several of its children do not. */
  #judgeSilent(accused: TreeRecord, accusers: readonly string[], nowMs: number): Move | undefined {
    if (accusers.length < ACCUSERS_NEEDED || nowMs - accused.movedMs < this.#config.restMs) {
      return undefined;
    }
    return this.#toLeaf(accused, "unreachable", nowMs);
  }

  /** One accuser alone moves so many others at most: it may be the liar itself. */
  #mayAccuse(accuser: string, nowMs: number): boolean {
    let acted = 0;
    for (const one of this.#complaints.values()) {
      const isRecent = nowMs - one.atMs < this.#config.convictionMs;
      if (one.accuser === accuser && one.isActedOn && isRecent) acted += 1;
    }
    return acted < this.#config.accusationsMax;
  }

  /**
   * On one accuser's word: who feeds it no longer does. The accused becomes a leaf; where it is the
   * root, whose change costs a working set, the accuser goes elsewhere if there is a place.
   */
  #separate(accuser: string, accused: TreeRecord, nowMs: number): Move | undefined {
    const { shape } = this.#tree;
    const { id } = accused.ref;
    const above = shape.ancestorsOf(accuser);
    // Whom a member asks for blocks: parent, grandparent, root.
    if (![above[0], above[1], above.at(-1)].includes(id)) return undefined;
    if (id !== shape.root) return this.#toLeaf(accused, "wrong-bytes", nowMs);
    const { zone } = shape.placeOf(accuser);
    for (const leaf of this.#tree.leaves(zone)) {
      const other = leaf.ref.id;
      if (other === accuser || other === id || shape.parentOf(other) === id) continue;
      const affected = this.#tree.swap(accuser, other);
      return { id: accuser, reason: "left-out", affected };
    }
    return this.#tree.size === 2 ? this.#toLeaf(accused, "wrong-bytes", nowMs) : undefined;
  }

  /** Undefined: it is one, or there is no other. */
  #toLeaf(record: TreeRecord, reason: MoveReason, nowMs: number): Move | undefined {
    const { id } = record.ref;
    if (this.#tree.childrenOf(id) === 0) return undefined;
    const { zone } = this.#tree.shape.placeOf(id);
    let best: TreeRecord | undefined;
    for (const leaf of this.#tree.leaves(zone)) {
      if (leaf.barredUntilMs > nowMs || leaf === record) continue;
      const isRested = nowMs - leaf.movedMs >= this.#config.restMs;
      const wasRested = best !== undefined && nowMs - best.movedMs >= this.#config.restMs;
      const isBetter =
        best === undefined ||
        (isRested && !wasRested) ||
        (isRested === wasRested && leaf.heldBlocks > best.heldBlocks);
      if (isBetter) best = leaf;
    }
    if (best === undefined) return undefined;
    record.movedMs = nowMs;
    record.slowFor = 0;
    best.movedMs = nowMs;
    return { id, reason, affected: this.#tree.swap(id, best.ref.id) };
  }
}
