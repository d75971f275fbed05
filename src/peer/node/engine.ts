/**
 * One node: membership and trees side by side on one packet port. It owns no socket and no file:
 * packets come by `receive`, go by the sink, and time is the clock's.
 */
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import {
  decodePacket,
  decodeView,
  encodePacket,
  encodeView,
  viewVersion,
} from "../membership/codec.ts";
import type { Destination, Effect, MembershipEvent } from "../membership/effects.ts";
import { isPresent } from "../membership/member.ts";
import type { Address, Member, MemberInfo } from "../membership/member.ts";
import { Swim } from "../membership/swim.ts";
import type { SwimInput } from "../membership/swim.ts";
import type { PeerRef } from "../peer-ref.ts";
import { cloneSign, newBootId } from "../transport/boot-id.ts";
import type { CloneSign, MachineState } from "../transport/boot-id.ts";
import type { Greeted } from "../transport/greeting.ts";
import type { KeyRing } from "../transport/key-ring.ts";
import { spokenVersion } from "../wire-versions.ts";
import type { PeerNodeConfig } from "./config.ts";
import { encodeMeta, peerRefOf } from "./member-meta.ts";
import { MemberWatch } from "./member-watch.ts";
import { PacketPort } from "./packet-port.ts";
import type { PacketHandlers, PacketSink } from "./packet-port.ts";
import { SeedKeeper } from "./seed-keeper.ts";
import { StreamCalls } from "./stream-calls.ts";
import type { Streams } from "./streams.ts";
import { TreeMembers } from "./tree-members.ts";
import type { TreeEffect, TreeInput, TreeMember } from "../tree/index.ts";
import type { MakeTree, TreePort, TreesReport } from "./tree-port.ts";

/** One member is greeted per interval, ms: round trip, clock, and whether packets reach it. */
const GREET_INTERVAL_MS = 10_000;
/** While some were never greeted, and there are not so many that it would take long anyway. */
const GREET_NEW_INTERVAL_MS = 1000;
const GREET_MANY = 32;
/** A timer that comes so much too early, ms, is set anew: waking up for nothing costs more. */
const WAKE_EARLY_MS = 50;
/** A view that was encoded is given to others for so long, ms: many ask at once when many join. */
const VIEW_FRESH_MS = 100;
/** At least, ms; else two probe intervals. */
const STREAM_TIMEOUT_MS = 2000;
/** The kinds of message that have to be answered: ping, indirect ping (codec.ts). */
const ASKING_KINDS: ReadonlySet<number | undefined> = new Set([0, 3]);

export interface EngineOptions {
  readonly config: PeerNodeConfig;
  readonly ring: KeyRing;
  /** What others are told to send to. */
  readonly address: Address;
  readonly socket: PacketSink;
  readonly streams: Streams;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** `host`: the address that this node says it has. */
  readonly machine: (host: string) => MachineState;
  readonly makeTree: MakeTree;
  /** What the tree asks for beside packets. */
  readonly onTree: (effect: Exclude<TreeEffect, { readonly kind: "send" }>) => void;
  /** After a change of the own boot or address. */
  readonly onSelf: (self: PeerRef) => void;
  /** No interface has the advertised address any more. */
  readonly onAddressLost: () => void;
}

/** What the layers above may ask of the trees. */
export type TreeRequest = Extract<
  TreeInput,
  { readonly kind: "join" | "leave" | "held" | "serving" | "complain" | "token" }
>;

export class Engine implements Disposable {
  readonly watch: MemberWatch;
  readonly #options: EngineOptions;
  readonly #swim: Swim;
  readonly #port: PacketPort;
  readonly #calls: StreamCalls;
  readonly #seeds: SeedKeeper;
  readonly #treeMembers: TreeMembers;
  readonly #tree: TreePort;
  #machine: MachineState;
  #self: PeerRef;
  #isJoined = false;
  #isJoining = false;
  #isStopped = false;
  #nextGreetMs: number;
  #view: { bytes: Uint8Array; version: number; untilMs: number } | undefined;
  #members: readonly TreeMember[] = [];
  #wake = { atMs: Infinity, cancel: (): void => undefined };
  #onLeft: (() => void) | undefined;

  /** Throws `invalid-argument` for a bad configuration. */
  constructor(options: EngineOptions) {
    const { config, clock, random, address, ring, socket } = options;
    const { id, zone, exchangePort, versions } = config;
    const nowMs = clock.nowMs();
    this.#options = options;
    this.#machine = options.machine(address.host);
    const boot = newBootId(random, this.#machine);
    this.#self = { id, boot, address, exchangePort, zone, version: versions.highest };
    const self = { id, boot, address, meta: encodeMeta(this.#self) };
    this.#swim = new Swim({ config: config.membership, self, random, nowMs });
    this.watch = new MemberWatch({ log: options.log, swim: this.#swim, clock });
    const handlers = this.#handlers();
    this.#port = new PacketPort({ ring, boot, versions, socket, random, clock, handlers });
    const timeoutMs = Math.max(STREAM_TIMEOUT_MS, 2 * config.membership.probeIntervalMs);
    this.#calls = new StreamCalls(options.streams, clock, { timeoutMs });
    this.#seeds = new SeedKeeper(random);
    const known = { swim: this.#swim, watch: this.watch, seeds: this.#seeds };
    this.#treeMembers = new TreeMembers(known, nowMs);
    const wire = { version: versions.highest, oldest: versions.lowest };
    this.#tree = options.makeTree({ self: this.#self, random, nowMs, wire });
    this.#nextGreetMs = nowMs + random.next() * GREET_NEW_INTERVAL_MS;
    this.#schedule();
  }

  get self(): PeerRef {
    return this.#self;
  }

  /** 0 is healthy. */
  get healthScore(): number {
    return this.#swim.healthScore;
  }

  /** Alive and suspect members, this node included. */
  get presentCount(): number {
    return this.#swim.presentCount;
  }

  /** Packets that could not be sent for want of a boot. */
  get dropped(): number {
    return this.#port.dropped;
  }

  /** Those present, as the trees were told last; another array after each change. */
  get members(): readonly TreeMember[] {
    return this.#members;
  }

  isSeed(address: Address): boolean {
    return this.#seeds.has(address);
  }

  /** A datagram. Never throws. */
  receive(packet: Uint8Array, from: Address): void {
    this.#enter(() => {
      this.#port.receive(packet, from);
    });
  }

  setSeeds(addresses: readonly Address[]): void {
    this.#enter((nowMs) => {
      this.#seeds.set(addresses, nowMs);
      const others = addresses.filter((address) => !this.#isSelf(address));
      this.#stepTree({ kind: "seeds", list: others.map((address) => ({ address })) }, nowMs);
      this.#treeMembers.reseed(nowMs);
    });
  }

  rotate(ring: KeyRing): void {
    this.#enter(() => {
      this.#port.rotate(ring);
    });
  }

  /** Others are told to send to another address from now on. */
  setAddress(address: Address): void {
    this.#enter((nowMs) => {
      this.#machine = this.#options.machine(address.host);
      this.#become({ ...this.#self, address }, nowMs);
    });
  }

  /** Throws what TreeAgent.step throws. */
  tree(input: TreeRequest): void {
    this.#enter((nowMs) => {
      if (this.#treeMembers.nextMs <= nowMs) this.#giveMembers(nowMs);
      this.#stepTree(input, nowMs);
    });
  }

  trees(): TreesReport {
    const tree = this.#tree;
    return {
      memberOf: tree.images().map((image) => ({ image, position: tree.position(image) })),
      managed: tree.managed(),
    };
  }

  /** Another's view came over a stream; ours in its version. Throws `data-loss` and others. */
  onPushPull(bytes: Uint8Array): Uint8Array {
    const records = decodeView(bytes, this.#options.config.versions);
    const answer = this.#encodedView(viewVersion(bytes));
    this.#enter((nowMs) => {
      this.#isJoined = true;
      this.#step({ kind: "view", records }, nowMs);
    });
    return answer;
  }

  /** Leaves trees and cluster; resolves when that was told as often as other news. */
  async leave(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#onLeft = resolve;
      this.#enter((nowMs) => {
        for (const image of this.#tree.images()) this.#stepTree({ kind: "leave", image }, nowMs);
        this.#step({ kind: "leave" }, nowMs);
      });
      if (this.#isStopped) resolve();
    });
  }

  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#wake.cancel();
    this.#calls[Symbol.dispose]();
    this.#onLeft?.();
  }

  /** Every way in: first whether this is still the machine that we know, at the end the timer. */
  #enter(work: (nowMs: number) => void): void {
    if (this.#isStopped) return;
    const nowMs = this.#options.clock.nowMs();
    const machine = this.#options.machine(this.#self.address.host);
    const sign = cloneSign(this.#machine, machine);
    this.#machine = machine;
    if (sign !== undefined) this.#renew(sign, nowMs);
    work(nowMs);
    if (this.#treeMembers.nextMs <= nowMs) this.#giveMembers(nowMs);
    this.#schedule();
  }

  /** Nothing may be sent with the old boot: the original may do that. */
  #renew(sign: CloneSign, nowMs: number): void {
    const boot = newBootId(this.#options.random, this.#machine);
    this.#treeMembers.startedMs = nowMs;
    this.#port.renew(boot);
    this.watch.note("cloned", this.#self.id, `${sign}: this node has a new boot id`);
    this.#become({ ...this.#self, boot }, nowMs);
    if (sign === "address") this.#options.onAddressLost();
  }

  #become(self: PeerRef, nowMs: number): void {
    this.#self = self;
    const { boot, address } = self;
    this.#step({ kind: "announce", change: { boot, address } }, nowMs);
    this.#stepTree({ kind: "self", self }, nowMs);
    this.#options.onSelf(self);
  }

  #schedule(): void {
    const { nextMs: swimMs } = this.#swim;
    const { nextMs: seedsMs } = this.#seeds;
    const partsMs = Math.min(swimMs, this.#port.nextMs, this.#tree.nextMs, seedsMs);
    const atMs = Math.min(partsMs, this.#nextGreetMs, this.#treeMembers.nextMs);
    // A timer that comes a little too early costs less than one that is set anew for every packet.
    const isSoonEnough = atMs >= this.#wake.atMs && atMs < this.#wake.atMs + WAKE_EARLY_MS;
    if (this.#isStopped || isSoonEnough || atMs === Infinity) return;
    this.#wake.cancel();
    const delayMs = Math.max(0, Math.ceil(atMs - this.#options.clock.nowMs()));
    const cancel = this.#options.clock.timer(delayMs, () => {
      this.#wake = { atMs: Infinity, cancel: () => undefined };
      this.#enter((nowMs) => {
        this.#tick(nowMs);
      });
    });
    this.#wake = { atMs, cancel };
  }

  #tick(nowMs: number): void {
    if (nowMs >= this.#swim.nextMs) this.#step({ kind: "tick" }, nowMs);
    if (nowMs >= this.#port.nextMs) this.#port.tick();
    if (nowMs >= this.#tree.nextMs) this.#stepTree({ kind: "tick" }, nowMs);
    if (nowMs >= this.#seeds.nextMs) this.#askSeeds(nowMs);
    if (nowMs >= this.#nextGreetMs) {
      this.#nextGreetMs = nowMs + GREET_INTERVAL_MS;
      const member = this.watch.nextToGreet();
      if (member !== undefined) this.#port.greet(member.address);
      this.#greetSoon(nowMs);
    }
  }

  #greetSoon(nowMs: number): void {
    const isSoon = this.watch.hasStrangers && this.#swim.presentCount <= GREET_MANY;
    if (isSoon) this.#nextGreetMs = Math.min(this.#nextGreetMs, nowMs + GREET_NEW_INTERVAL_MS);
  }

  #askSeeds(nowMs: number): void {
    const isJoined = this.#isJoined && this.#swim.presentCount > 1;
    const known = this.#swim.isLeaving ? undefined : this.watch.presentAddresses();
    if (known === undefined) return;
    const isKnown = (address: Address): boolean =>
      this.#isSelf(address) || (isJoined && known.has(address));
    for (const address of this.#seeds.due(nowMs, isKnown, isJoined)) this.#port.greet(address);
  }

  #handlers(): PacketHandlers {
    return {
      onContent: (kind, from, content) => {
        const nowMs = this.#options.clock.nowMs();
        this.watch.heard(from.boot, nowMs);
        if (kind === "tree") {
          this.#stepTree({ kind: "packet", from, sender: from.boot, content }, nowMs);
          return;
        }
        const messages = decodePacket(content, this.#options.config.versions);
        const sender = this.watch.idOf(from.boot) ?? "";
        this.#step({ kind: "packet", from, sender, messages }, nowMs);
      },
      onGreeted: (greeted) => {
        this.#onGreeted(greeted, this.#options.clock.nowMs());
      },
      onUnanswered: (address) => {
        this.watch.unanswered(address, this.#seeds.has(address));
      },
      onRefused: (reason, from, detail) => {
        this.watch.refusedPacket(reason, from, detail);
      },
      onKeyUnknownThere: (from) => {
        this.watch.keyUnknownThere(from);
      },
      self: () => {
        const { incarnation, id, boot, address, meta } = this.#swim.self;
        return { incarnation, member: { id, boot, address, meta } };
      },
    };
  }

  #onGreeted(greeted: Greeted, nowMs: number): void {
    const { welcome, address } = greeted;
    const { member, incarnation } = welcome;
    const isSeed = this.#seeds.has(address);
    if (!this.watch.greeted(greeted)) return;
    if (member.id === this.#self.id) {
      this.watch.twin(this.#self.address, greeted);
      return;
    }
    const before = this.#swim.get(member.id);
    const wasPresent = before !== undefined && isPresent(before);
    const records = [{ state: "alive", incarnation, member }] as const;
    this.#step({ kind: "view", records }, nowMs);
    this.watch.measured(greeted);
    if (isSeed && !this.#isJoining && (!wasPresent || !this.#isJoined)) this.#join(member);
  }

  #join(seed: MemberInfo): void {
    this.#isJoining = true;
    this.#pushPull(seed, () => {
      this.#isJoining = false;
    });
  }

  #step(input: SwimInput, nowMs: number): void {
    for (const effect of this.#swim.step(input, nowMs)) this.#run(effect, nowMs);
  }

  #run(effect: Effect, nowMs: number): void {
    switch (effect.kind) {
      case "send": {
        const { to, messages } = effect;
        const isAsking = messages.some(([kind]) => ASKING_KINDS.has(kind));
        const packet = encodePacket(messages, this.#versionFor(to));
        this.#port.send("membership", to, packet, { isAsking });
        break;
      }
      case "stream-probe":
        this.#probe(effect.target, effect.sequence);
        break;
      case "push-pull":
        this.#pushPull(effect.target);
        break;
      case "event":
        this.#onEvent(effect.event, nowMs);
        break;
      case "has-left":
        this.#onLeft?.();
    }
  }

  #onEvent(event: MembershipEvent, nowMs: number): void {
    this.watch.onEvent(event, nowMs);
    if (event.kind === "joined" || event.kind === "updated") {
      const { address, boot } = event.member;
      const isRestarted = event.kind === "updated" && event.previous.boot !== boot;
      if (isRestarted || this.#port.bootAt(address) === undefined) this.#port.learn(address, boot);
    }
    if (event.kind !== "conflict" && event.kind !== "refused") {
      this.#view = undefined;
      this.#treeMembers.changed(nowMs);
    }
    if (event.kind === "joined") this.#greetSoon(nowMs);
    if (event.kind === "died" && this.#swim.presentCount === 1) this.#seeds.hurry(nowMs);
  }

  #giveMembers(nowMs: number): void {
    this.#members = this.#treeMembers.take(nowMs);
    this.#stepTree({ kind: "members", list: this.#members }, nowMs);
  }

  #stepTree(input: TreeInput, nowMs: number): void {
    for (const effect of this.#tree.step(input, nowMs)) {
      if (effect.kind === "send") {
        const { to, content, isAsking } = effect;
        this.#port.send("tree", to, content, { isAsking });
      } else this.#options.onTree(effect);
    }
  }

  /** What both speak; the lowest of ours for somebody unknown. */
  #versionFor({ boot }: Destination): number {
    const member = this.#swim.get(this.watch.idOf(boot ?? "") ?? "");
    const theirs = member === undefined ? undefined : this.#treeMembers.of(member)?.version;
    return spokenVersion(this.#options.config.versions, theirs);
  }

  #probe(target: Member, sequence: number): void {
    const ref = peerRefOf(target);
    if (ref === undefined || ref.exchangePort === 0) return;
    const startMs = this.#options.clock.nowMs();
    this.#calls.probe(ref, ({ error }) => {
      this.watch.streamed(ref.id, error, { probedMs: startMs });
      if (error !== undefined) return;
      this.#enter((nowMs) => {
        this.#step({ kind: "stream-ack", sequence }, nowMs);
      });
    });
  }

  #pushPull(target: MemberInfo, done: () => void = () => undefined): void {
    const ref = peerRefOf(target);
    if (ref === undefined || ref.exchangePort === 0) {
      done();
      return;
    }
    const view = this.#encodedView(spokenVersion(this.#options.config.versions, ref.version));
    this.#calls.pushPull(ref, view, ({ value, error }) => {
      done();
      this.watch.streamed(ref.id, error, {});
      if (value === undefined) return;
      this.#enter((nowMs) => {
        this.#mergeAnswer(value, ref, nowMs);
      });
    });
  }

  #mergeAnswer(bytes: Uint8Array, from: PeerRef, nowMs: number): void {
    try {
      const records = decodeView(bytes, this.#options.config.versions);
      this.#isJoined = true;
      this.#step({ kind: "view", records }, nowMs);
    } catch (error) {
      this.watch.refusedView(from, error);
    }
  }

  #encodedView(version: number): Uint8Array {
    const nowMs = this.#options.clock.nowMs();
    if (this.#view?.version !== version || this.#view.untilMs < nowMs) {
      const bytes = encodeView(this.#swim.records(), version);
      this.#view = { bytes, version, untilMs: nowMs + VIEW_FRESH_MS };
    }
    return this.#view.bytes;
  }

  #isSelf({ host, port }: Address): boolean {
    const own = this.#self.address;
    return host === own.host && port === own.port;
  }
}
