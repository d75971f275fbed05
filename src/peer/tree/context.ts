/** What both halves of a tree agent, manager and member, work with. */
import type { Random } from "../../base/random.ts";
import { isPresent } from "../membership/index.ts";
import type { Destination } from "../membership/index.ts";
import type { PeerRef } from "../peer-ref.ts";
import { encodeTreeMessage } from "./codec.ts";
import type { WireVersions } from "./codec.ts";
import { gatherMs } from "./config.ts";
import type { TreeConfig } from "./config.ts";
import type { TreeEffect, TreeEvent } from "./effects.ts";
import { LOOPBACK_MAX } from "./limits.ts";
import type { Contact, TreeMessage } from "./messages.ts";
import { Ranking } from "./ranking.ts";
import type { Ranked, TreeMember } from "./ranking.ts";
import { Reachability } from "./reachability.ts";

export interface TreeContextOptions {
  readonly config: TreeConfig;
  readonly self: PeerRef;
  readonly random: Random;
  readonly wire: WireVersions;
  readonly nowMs: number;
}

interface Vanished {
  readonly id: string;
  readonly atMs: number;
}

/** Members that went and are remembered for the time of two heartbeats. */
const VANISHED_MAX = 4096;

export class TreeContext {
  readonly config: TreeConfig;
  readonly random: Random;
  readonly ranking: Ranking;
  readonly reach: Reachability;
  readonly startedMs: number;
  readonly #wire: WireVersions;
  #self: PeerRef;
  #effects: TreeEffect[] = [];
  #loopback: TreeMessage[] = [];
  #seeds: readonly Destination[] = [];
  #heardMs: number;
  readonly #vanished: Vanished[] = [];

  constructor({ config, self, random, wire, nowMs }: TreeContextOptions) {
    this.config = config;
    this.#self = self;
    this.random = random;
    this.#wire = wire;
    this.startedMs = nowMs;
    this.#heardMs = nowMs;
    this.reach = new Reachability(random);
    const isSilent = (boot: string): boolean => this.reach.isSilent(boot);
    this.ranking = new Ranking({
      selfId: () => this.#self.id,
      settledMs: config.settledMs,
      isSilent,
    });
  }

  get self(): PeerRef {
    return this.#self;
  }

  set self(self: PeerRef) {
    this.#self = self;
  }

  get contact(): Contact {
    const { id, boot, address } = this.#self;
    return { id, boot, address };
  }

  /** Other members to ask while nobody is known. */
  get seeds(): readonly Destination[] {
    return this.#seeds;
  }

  setSeeds(list: readonly Destination[]): void {
    const { host, port } = this.#self.address;
    this.#seeds = list.filter(({ address }) => address.host !== host || address.port !== port);
  }

  /** To this member itself too: then it is handled in the same step. */
  send(to: Destination, message: TreeMessage): void {
    if (to.boot === this.#self.boot) {
      if (this.#loopback.length < LOOPBACK_MAX) this.#loopback.push(message);
      return;
    }
    const { address, boot } = to;
    const content = encodeTreeMessage(message, this.#wire);
    this.#effects.push({
      kind: "send",
      to: boot === undefined ? { address } : { address, boot },
      content,
      isAsking: isAsking(message),
    });
  }

  event(event: TreeEvent): void {
    this.#effects.push({ kind: "event", event });
  }

  effect(effect: TreeEffect): void {
    this.#effects.push(effect);
  }

  takeEffects(): readonly TreeEffect[] {
    const effects = this.#effects;
    this.#effects = [];
    return effects;
  }

  takeLoopback(): readonly TreeMessage[] {
    const messages = this.#loopback;
    if (messages.length > 0) this.#loopback = [];
    return messages;
  }

  heard(boot: string, nowMs: number): void {
    this.#heardMs = nowMs;
    if (this.reach.heard(boot, nowMs)) this.ranking.changed();
  }

  /** Takes a new view; returns who was present and is not now. */
  members(list: readonly TreeMember[], nowMs: number): readonly TreeMember[] {
    const gone = this.ranking.update(list);
    for (const { id } of gone) this.vanish(id, nowMs);
    return gone;
  }

  /** A member that may have managed trees is gone, or silent. */
  vanish(id: string, nowMs: number): void {
    this.ranking.changed();
    if (id === this.#self.id) return;
    this.#vanished.push({ id, atMs: nowMs });
    if (this.#vanished.length > VANISHED_MAX) this.#vanished.shift();
  }

  /** The image's manager and its deputy, as far as this node's view says. */
  ranked(image: string, nowMs: number): Ranked {
    const ranked = this.ranking.top(image, nowMs);
    if (ranked.first !== undefined) return ranked;
    return this.ranking.hasOthers() ? this.ranking.topOfPresent(image) : {};
  }

  /** Not known to be dead or gone: newcomers are not known at all. */
  isPresent({ id, boot }: Contact): boolean {
    const member = this.ranking.get(id);
    return member === undefined || (member.boot === boot && isPresent(member));
  }

  /**
   * Nobody else is there, or none has been heard of for long: this member decides for itself.
   */
  isAlone(nowMs: number): boolean {
    if (this.ranking.hasOthers()) return false;
    return this.#seeds.length === 0 || nowMs - this.#heardMs >= this.config.aloneMs;
  }

  /**
   * Whether others may have managed this tree until just now: then its members have to be heard
   * before anybody is made root.
   */
  mustGather(image: string, nowMs: number): boolean {
    const sinceMs = nowMs - gatherMs(this.config);
    if (!this.ranking.hasOthers() && this.isAlone(nowMs)) return false;
    const self = this.ranking.get(this.#self.id);
    const isFresh = this.startedMs > sinceMs;
    const settlesMs =
      self === undefined || self.isSeed ? -Infinity : self.aliveSinceMs + this.config.settledMs;
    if (isFresh || settlesMs > sinceMs) return true;
    while ((this.#vanished[0]?.atMs ?? Infinity) <= sinceMs) this.#vanished.shift();
    const own = this.ranking.score(image, this.#self.id);
    return this.#vanished.some(({ id }) => this.ranking.score(image, id) > own);
  }
}

/** Whether the receiver has to answer at once; a deputy's silence to a heartbeat says nothing. */
function isAsking(message: TreeMessage): boolean {
  switch (message.kind) {
    case "report":
      return message.rank !== "deputy";
    case "position":
    case "ping":
    case "beat":
    case "token":
      return true;
    default:
      return false;
  }
}
