/**
 * SWIM with Lifeguard's additions as a state machine: `step` takes an input and the time, and
 * returns what is to be done. It owns no clock, no socket and no randomness of its own, so that a
 * simulation of a thousand members is deterministic.
 */
import type { Random } from "../../base/random.ts";
import { checkConfig } from "./config.ts";
import type { MembershipConfig } from "./config.ts";
import { Dissemination } from "./dissemination.ts";
import type { Destination, Effect } from "./effects.ts";
import { FailureDetector } from "./failure-detector.ts";
import { pushPullIntervalMs } from "./formulas.ts";
import { META_BYTES_MAX } from "./limits.ts";
import { isPresent } from "./member.ts";
import type { Member, MemberInfo } from "./member.ts";
import type { Message, ViewRecord } from "./messages.ts";
import { DaemonError } from "../../base/errors.ts";
import { addressBytes, checkMemberId } from "./wire.ts";

export interface SwimOptions {
  readonly config: MembershipConfig;
  readonly self: MemberInfo;
  readonly random: Random;
  readonly nowMs: number;
}

export type SwimInput =
  /** The time that `nextMs` named has come. */
  | { readonly kind: "tick" }
  /** Messages of one packet; `sender` is the id that the seal proves, where it is known. */
  | {
      readonly kind: "packet";
      readonly from: Destination;
      readonly sender: string;
      readonly messages: readonly Message[];
    }
  /** Another node's view, by push/pull. */
  | { readonly kind: "view"; readonly records: readonly ViewRecord[] }
  /** A stream probe was answered. */
  | { readonly kind: "stream-ack"; readonly sequence: number }
  | { readonly kind: "announce"; readonly change: Partial<Omit<MemberInfo, "id">> }
  | { readonly kind: "leave" };

export class Swim {
  readonly #config: MembershipConfig;
  readonly #random: Random;
  readonly #members: Dissemination;
  readonly #detector: FailureDetector;
  #nextGossipMs: number;
  #nextPushPullMs: number;
  #nextReconnectMs: number;
  #hasLeft = false;

  /** Throws `invalid-argument` for a bad configuration, id, address or metadata. */
  constructor({ config, self, random, nowMs }: SwimOptions) {
    this.#config = checkConfig(config);
    checkMemberId(self.id);
    addressBytes(self.address.host);
    checkMeta(self.meta);
    this.#random = random;
    this.#members = new Dissemination({ config, self, random, nowMs });
    this.#detector = new FailureDetector(config, this.#members, {
      firstProbeMs: nowMs + this.#spread(config.probeIntervalMs),
      firstSequence: Math.floor(random.next() * 2 ** 32),
    });
    // Members that start together must not go on in step.
    this.#nextGossipMs = nowMs + this.#spread(this.#interval(config.gossipIntervalMs));
    this.#nextPushPullMs = nowMs + this.#soonMs();
    this.#nextReconnectMs = nowMs + this.#spread(this.#interval(config.reconnectIntervalMs));
  }

  get self(): Member {
    return this.#members.self;
  }

  /** 0 is healthy; higher: this node seems slow or badly connected. */
  get healthScore(): number {
    return this.#members.awareness.score;
  }

  get isLeaving(): boolean {
    return this.#members.isLeaving;
  }

  /** Alive and suspect members, this node included. */
  get presentCount(): number {
    return this.#members.view.presentCount;
  }

  get(id: string): Member | undefined {
    return this.#members.view.get(id);
  }

  /** Everybody remembered, dead ones too. */
  members(): Iterable<Member> {
    return this.#members.view.all();
  }

  /** This node's view, for push/pull. */
  records(): readonly ViewRecord[] {
    return this.#members.records();
  }

  /** When `step` wants its next tick. */
  get nextMs(): number {
    if (this.#hasLeft) return Infinity;
    return Math.min(
      this.#hasGossip ? this.#nextGossipMs : Infinity,
      this.#nextPushPullMs,
      this.#nextReconnectMs,
      this.#members.nextMs,
      this.#members.isLeaving ? Infinity : this.#detector.nextMs,
    );
  }

  step(input: SwimInput, nowMs: number): readonly Effect[] {
    const effects = this.#take(input, nowMs);
    // Not at once when there is something to say again: others have news in the same moment.
    if (this.#hasGossip && this.#nextGossipMs < nowMs) {
      const intervalMs = this.#config.gossipIntervalMs;
      this.#nextGossipMs += Math.ceil((nowMs - this.#nextGossipMs) / intervalMs) * intervalMs;
    }
    return effects;
  }

  /** Nothing to say, or nobody to say it to: no timer either. */
  get #hasGossip(): boolean {
    const { isLeaving, hasBroadcasts, view } = this.#members;
    return isLeaving || (hasBroadcasts && view.size > 1);
  }

  #take(input: SwimInput, nowMs: number): readonly Effect[] {
    switch (input.kind) {
      case "tick":
        return this.#tick(nowMs);
      case "packet":
        return input.messages.flatMap((message) => this.#receive(message, input, nowMs));
      case "view":
        return this.#merge(input.records, nowMs);
      case "stream-ack":
        return this.#detector.onAck(input.sequence, nowMs);
      case "announce":
        if (input.change.meta !== undefined) checkMeta(input.change.meta);
        if (!this.#members.isLeaving) this.#members.announce(input.change, nowMs);
        return [];
      case "leave":
        this.#members.leave(nowMs);
        return this.#gossip(nowMs);
    }
  }

  /** Who learns of members by a view has missed gossip, and probably of more than these. */
  #merge(records: readonly ViewRecord[], nowMs: number): readonly Effect[] {
    const effects = this.#members.merge(records, nowMs);
    if (effects.some((effect) => effect.kind === "event" && effect.event.kind === "joined")) {
      this.#nextPushPullMs = Math.min(this.#nextPushPullMs, nowMs + this.#soonMs());
    }
    return effects;
  }

  #receive(
    message: Message,
    { from, sender }: { readonly from: Destination; readonly sender: string },
    nowMs: number,
  ): readonly Effect[] {
    switch (message.kind) {
      case "ping":
        return this.#members.isLeaving ? [] : this.#detector.onPing(message, from);
      case "indirect-ping":
        return this.#detector.onIndirectPing(message, from, nowMs);
      case "ack":
        return this.#detector.onAck(message.sequence, nowMs);
      case "nack":
        this.#detector.onNack(message.sequence, sender);
        return [];
      case "alive":
      case "suspect":
      case "dead":
        return this.#members.apply(message, nowMs);
    }
  }

  #tick(nowMs: number): readonly Effect[] {
    if (this.#hasLeft) return [];
    const effects: Effect[] = [...this.#members.endSuspicions(nowMs)];
    if (!this.#members.isLeaving) effects.push(...this.#detector.tick(nowMs));
    if (this.#hasGossip && nowMs >= this.#nextGossipMs) effects.push(...this.#gossip(nowMs));
    if (nowMs >= this.#nextPushPullMs) effects.push(...this.#pushPull(nowMs));
    if (nowMs >= this.#nextReconnectMs) effects.push(...this.#reconnect(nowMs));
    return effects;
  }

  #gossip(nowMs: number): readonly Effect[] {
    this.#nextGossipMs = nowMs + this.#interval(this.#config.gossipIntervalMs);
    const effects: Effect[] = [];
    const deadSinceMs = nowMs - this.#config.gossipToTheDeadMs;
    const picked = this.#members.view.pick(
      this.#config.gossipNodes,
      (member) =>
        this.#isOther(member) &&
        (isPresent(member) || (member.state === "dead" && member.changedMs > deadSinceMs)),
    );
    for (const to of picked) {
      const messages = this.#members.riders([]);
      if (messages.length === 0) break;
      effects.push({ kind: "send", to: { address: to.address, boot: to.boot }, messages });
    }
    const isAlone = picked.length === 0;
    if (this.#members.isLeaving && (isAlone || !this.#members.isLeavingUntold)) {
      this.#hasLeft = true;
      effects.push({ kind: "has-left" });
    }
    return effects;
  }

  #pushPull(nowMs: number): readonly Effect[] {
    const { pushPullIntervalMs: intervalMs } = this.#config;
    const scaledMs = pushPullIntervalMs(intervalMs, this.presentCount);
    this.#nextPushPullMs = nowMs + this.#interval(scaledMs);
    return this.#exchange((member) => member.state === "alive");
  }

  #reconnect(nowMs: number): readonly Effect[] {
    this.#nextReconnectMs = nowMs + this.#interval(this.#config.reconnectIntervalMs);
    const staleMs = nowMs - this.#config.reconnectTimeoutMs;
    this.#members.view.forget(
      (member) => this.#isOther(member) && !isPresent(member) && member.changedMs < staleMs,
    );
    return this.#exchange((member) => member.state === "dead");
  }

  #exchange(fits: (member: Member) => boolean): readonly Effect[] {
    if (this.#members.isLeaving) return [];
    const [target] = this.#members.view.pick(1, (member) => this.#isOther(member) && fits(member));
    return target === undefined ? [] : [{ kind: "push-pull", target }];
  }

  #isOther(member: Member): boolean {
    return member.id !== this.self.id;
  }

  /** Not before the others that start now are known, and early: to find whom gossip missed. */
  #soonMs(): number {
    const intervalMs = this.#interval(this.#config.pushPullIntervalMs);
    return (intervalMs + this.#spread(intervalMs)) / 12;
  }

  /** 0 in the configuration switches a timer off. */
  #interval(ms: number): number {
    return ms === 0 ? Infinity : ms;
  }

  #spread(ms: number): number {
    return ms === Infinity ? Infinity : this.#random.next() * ms;
  }
}

function checkMeta(meta: Uint8Array): void {
  if (meta.length <= META_BYTES_MAX) return;
  throw new DaemonError("invalid-argument", `${meta.length} bytes of metadata; at most 128`);
}
