/**
 * SWIM's dissemination component: what a node believes of the others, what it passes on, and how it
 * refutes what others believe of it. The order of precedence is SWIM 4.2's: a higher incarnation
 * wins; with the same one suspect overrides alive, and dead overrides both.
 */
import type { Random } from "../../base/random.ts";
import { Awareness } from "./awareness.ts";
import { BroadcastQueue } from "./broadcast-queue.ts";
import { roomBeside } from "./codec.ts";
import type { MembershipConfig } from "./config.ts";
import type { Effect, MembershipEvent } from "./effects.ts";
import { confirmationsNeeded, retransmitLimit, suspicionTimeoutMs } from "./formulas.ts";
import { INCARNATION_MAX, MEMBERS_MAX } from "./limits.ts";
import { isPresent, isSameAddress, isSameBytes, memberOf } from "./member.ts";
import type { Member, MemberInfo } from "./member.ts";
import type { Alive, Broadcast, Dead, Suspect, ViewRecord } from "./messages.ts";
import { Suspicion } from "./suspicion.ts";
import { View } from "./view.ts";

export interface DisseminationOptions {
  readonly config: MembershipConfig;
  readonly self: MemberInfo;
  readonly random: Random;
  readonly nowMs: number;
}

/**
 * For so long after its start, ms, a node that is told of many more members than it knows does not
 * pass them on: it is the newcomer, and they are old news. A thousand nodes that start together
 * would fill each other's packets with it.
 */
const NEWCOMER_MS = 15_000;
const NEWCOMER_RATIO = 4;
/** More than so many are told of by a view are old news to a newcomer, whatever it knows. */
const NEWCOMER_MANY = 32;
/**
 * Among more members than this, hearing news that one has counts as telling them, and finding them
 * in somebody's whole view as telling them so often: a thousand members that start together would
 * tell each other everything sixteen times.
 */
const FEEDBACK_MEMBERS = 32;
const FEEDBACK_OF_VIEW = 4;

function isSameInfo(one: MemberInfo, other: MemberInfo): boolean {
  return (
    one.boot === other.boot &&
    isSameAddress(one.address, other.address) &&
    isSameBytes(one.meta, other.meta)
  );
}

export class Dissemination {
  readonly awareness: Awareness;
  readonly view: View;
  readonly #config: MembershipConfig;
  readonly #queue = new BroadcastQueue();
  readonly #suspicions = new Map<string, Suspicion>();
  readonly #selfId: string;
  readonly #startedMs: number;
  /** No suspicion ends before. */
  #nextEndMs = Infinity;
  #isLeaving = false;

  constructor({ config, self, random, nowMs }: DisseminationOptions) {
    this.#config = config;
    this.#selfId = self.id;
    this.#startedMs = nowMs;
    this.awareness = new Awareness(config.awarenessMax);
    this.view = new View(random);
    this.view.set(memberOf(self, { state: "alive", incarnation: 0, changedMs: nowMs }));
    this.#queue.add({ kind: "alive", incarnation: 0, member: self });
  }

  get self(): Member {
    const self = this.view.get(this.#selfId);
    if (self === undefined) throw new RangeError("the view has lost its own member");
    return self;
  }

  get isLeaving(): boolean {
    return this.#isLeaving;
  }

  /** Whether the own leaving still has to be told. */
  get isLeavingUntold(): boolean {
    return this.#isLeaving && this.#queue.has(this.#selfId);
  }

  /** Whether anything waits to ride on packets. */
  get hasBroadcasts(): boolean {
    return this.#queue.size > 0;
  }

  /** When to call `endSuspicions`, or earlier; Infinity when there is none. */
  get nextMs(): number {
    return this.#nextEndMs;
  }

  /** Takes one broadcast up, whoever it is about. */
  apply(broadcast: Broadcast, nowMs: number): readonly Effect[] {
    const events: MembershipEvent[] = [];
    this.#apply(broadcast, nowMs, events);
    return events.map((event) => ({ kind: "event", event }));
  }

  /**
   * Another node's whole view. What it calls dead is only suspected here, so that a member that
   * lives can say so. Source: memberlist, mergeState.
   */
  merge(records: readonly ViewRecord[], nowMs: number): readonly Effect[] {
    const events: MembershipEvent[] = [];
    const isMany =
      records.length > NEWCOMER_MANY || records.length > NEWCOMER_RATIO * this.view.size;
    const isNewcomer = isMany && nowMs - this.#startedMs < NEWCOMER_MS;
    for (const { state, incarnation, member } of records) {
      const { id } = member;
      const from = state === "left" ? id : this.#selfId;
      // A suspect that is not known here would be missed until it refutes.
      if (state === "alive" || (state === "suspect" && this.view.get(id) === undefined)) {
        const alive = { kind: "alive", incarnation, member } as const;
        this.#alive(alive, nowMs, events, { isOldNews: isNewcomer, told: FEEDBACK_OF_VIEW });
      }
      if (state === "left") this.#apply({ kind: "dead", incarnation, id, from }, nowMs, events);
      if (state === "suspect" || state === "dead") {
        this.#apply({ kind: "suspect", incarnation, id, from }, nowMs, events);
      }
    }
    return events.map((event) => ({ kind: "event", event }));
  }

  /** Calls those dead whose time to refute is over. */
  endSuspicions(nowMs: number): readonly Effect[] {
    if (nowMs < this.#nextEndMs) return [];
    this.#nextEndMs = Infinity;
    const effects: Effect[] = [];
    for (const [id, { endsMs }] of this.#suspicions) {
      const member = this.view.get(id);
      if (endsMs > nowMs) this.#nextEndMs = Math.min(this.#nextEndMs, endsMs);
      if (member === undefined || endsMs > nowMs) continue;
      const { incarnation } = member;
      effects.push(...this.apply({ kind: "dead", incarnation, id, from: this.#selfId }, nowMs));
    }
    return effects;
  }

  /** This node says something new of itself: other metadata, another address, another boot. */
  announce(change: Partial<Omit<MemberInfo, "id">>, nowMs: number): void {
    this.#setSelf({ ...this.self, ...change }, this.self.incarnation + 1, nowMs);
  }

  leave(nowMs: number): void {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    const { incarnation, id } = this.self;
    this.view.set(memberOf(this.self, { state: "left", incarnation, changedMs: nowMs }));
    this.#queue.add({ kind: "dead", incarnation, id, from: id });
  }

  /** Broadcasts that fit into a packet beside `messages`. */
  riders(messages: readonly Uint8Array[]): readonly Uint8Array[] {
    const limit = retransmitLimit(this.#config.retransmitMult, this.view.presentCount);
    return this.#queue.take(roomBeside(messages), Math.max(1, limit));
  }

  records(): readonly ViewRecord[] {
    return Array.from(this.view.all(), ({ id, boot, address, meta, state, incarnation }) => {
      return { state, incarnation, member: { id, boot, address, meta } };
    });
  }

  #apply(broadcast: Broadcast, nowMs: number, events: MembershipEvent[]): void {
    switch (broadcast.kind) {
      case "alive":
        this.#alive(broadcast, nowMs, events);
        break;
      case "suspect":
        this.#suspect(broadcast, nowMs, events);
        break;
      case "dead":
        this.#dead(broadcast, nowMs, events);
    }
  }

  #alive(
    alive: Alive,
    nowMs: number,
    events: MembershipEvent[],
    { isOldNews, told } = { isOldNews: false, told: 1 },
  ): void {
    const { member: info, incarnation } = alive;
    const known = this.view.get(info.id);
    if (info.id === this.#selfId) {
      this.#aliveSelf(alive, nowMs, events);
      return;
    }
    if (known === undefined) {
      if (this.view.size >= MEMBERS_MAX) {
        events.push({ kind: "refused", other: info });
        return;
      }
    } else {
      const isMoved = !isSameAddress(known.address, info.address);
      // The same boot is the same process, which may change its address; another one may not.
      const isTaken = isMoved && known.boot !== info.boot && !this.#isFree(known, nowMs);
      if (isTaken) {
        events.push({ kind: "conflict", member: known, other: info });
        return;
      }
      const isReclaimed = isMoved && !isPresent(known);
      if (incarnation <= known.incarnation && !isReclaimed) {
        this.#heardAgain(known, incarnation, told);
        return;
      }
    }
    if (!isOldNews) this.#queue.add(alive);
    this.#suspicions.delete(info.id);
    const wasPresent = known !== undefined && isPresent(known);
    const changedMs = known?.state === "alive" ? known.changedMs : nowMs;
    const member = memberOf(info, { state: "alive", incarnation, changedMs });
    this.view.set(member);
    if (!wasPresent) events.push({ kind: "joined", member });
    else if (known.state === "suspect") events.push({ kind: "cleared", member });
    if (wasPresent && !isSameInfo(known, info)) {
      events.push({ kind: "updated", member, previous: known });
    }
  }

  #heardAgain({ id, state, incarnation }: Member, heard: number, told: number): void {
    const isSame = state === "alive" && heard === incarnation;
    if (isSame && this.view.presentCount > FEEDBACK_MEMBERS) this.#queue.heard(id, told);
  }

  #isFree(known: Member, nowMs: number): boolean {
    if (known.state === "left") return true;
    return known.state === "dead" && nowMs - known.changedMs >= this.#config.deadReclaimMs;
  }

  /** Somebody's word about this node itself. */
  #aliveSelf(alive: Alive, nowMs: number, events: MembershipEvent[]): void {
    const { self } = this;
    const { member: other, incarnation } = alive;
    if (this.#isLeaving || incarnation < self.incarnation) return;
    if (!isSameAddress(other.address, self.address) && other.boot !== self.boot) {
      events.push({ kind: "conflict", member: self, other });
      return;
    }
    // What this node said before it was started again, or a rumour with a raised incarnation.
    if (incarnation > self.incarnation || !isSameInfo(other, self)) {
      this.#refute(incarnation, nowMs);
    }
  }

  #suspect(suspect: Suspect, nowMs: number, events: MembershipEvent[]): void {
    const { id, incarnation, from } = suspect;
    const known = this.view.get(id);
    if (known === undefined || incarnation < known.incarnation) return;
    const suspicion = this.#suspicions.get(id);
    if (suspicion !== undefined) {
      if (!suspicion.confirm(from)) return;
      this.#queue.add(suspect);
      this.#nextEndMs = Math.min(this.#nextEndMs, suspicion.endsMs);
      return;
    }
    if (known.state !== "alive") return;
    if (id === this.#selfId) {
      this.#refute(incarnation, nowMs);
      return;
    }
    this.#queue.add(suspect);
    const members = this.view.presentCount;
    const minMs = suspicionTimeoutMs(this.#config, members);
    const maxMs = minMs * this.#config.suspicionMaxTimeoutMult;
    const needed = confirmationsNeeded(this.#config, members);
    const started = new Suspicion({ startedMs: nowMs, from, needed, minMs, maxMs });
    this.#suspicions.set(id, started);
    this.#nextEndMs = Math.min(this.#nextEndMs, started.endsMs);
    const member = memberOf(known, { state: "suspect", incarnation, changedMs: nowMs });
    this.view.set(member);
    events.push({ kind: "suspected", member });
  }

  #dead(dead: Dead, nowMs: number, events: MembershipEvent[]): void {
    const { id, incarnation, from } = dead;
    const known = this.view.get(id);
    if (known === undefined || incarnation < known.incarnation || !isPresent(known)) return;
    if (id === this.#selfId) {
      if (!this.#isLeaving) this.#refute(incarnation, nowMs);
      return;
    }
    this.#suspicions.delete(id);
    this.#queue.add(dead);
    const state = from === id ? "left" : "dead";
    const member = memberOf(known, { state, incarnation, changedMs: nowMs });
    this.view.set(member);
    events.push({ kind: state === "left" ? "left" : "died", member });
  }

  /** Whoever has to refute is slow, or hard to reach: Lifeguard 4.1. */
  #refute(incarnation: number, nowMs: number): void {
    this.awareness.add(1);
    this.#setSelf(this.self, Math.max(this.self.incarnation, incarnation) + 1, nowMs);
  }

  #setSelf(info: MemberInfo, incarnation: number, nowMs: number): void {
    const { id, boot, address, meta } = info;
    const raised = Math.min(incarnation, INCARNATION_MAX);
    const member = { id, boot, address, meta };
    this.view.set(memberOf(member, { state: "alive", incarnation: raised, changedMs: nowMs }));
    this.#queue.add({ kind: "alive", incarnation: raised, member });
  }
}
