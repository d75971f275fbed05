/**
 * Function trees as a state machine: `step` takes an input and the time, and returns what is to be
 * done. It is a member of some images' trees, and manages or stands in for others; it owns no
 * clock, no socket and no randomness of its own.
 */
import { DaemonError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { Destination } from "../membership/index.ts";
import { checkMemberId } from "../membership/wire.ts";
import type { PeerRef } from "../peer-ref.ts";
import { decodeTreeMessage, TREE_WIRE } from "./codec.ts";
import type { WireVersions } from "./codec.ts";
import { checkTreeConfig } from "./config.ts";
import type { TreeConfig } from "./config.ts";
import { TreeContext } from "./context.ts";
import type { Position, TreeEffect, TreeInput } from "./effects.ts";
import { SEATS_MAX } from "./limits.ts";
import { TreeManager } from "./tree-manager.ts";
import type { PingMessage, PongMessage, TreeMessage } from "./messages.ts";
import type { TreeMember } from "./ranking.ts";
import { reportOf } from "./report.ts";
import type { ManagedTreeReport } from "./report.ts";
import { MemberSeat } from "./seat.ts";
import { TokenRequests } from "./token-requests.ts";
import { checkImage, checkZone } from "./wire.ts";

export interface TreeAgentOptions {
  readonly config: TreeConfig;
  readonly self: PeerRef;
  readonly random: Random;
  readonly nowMs: number;
  /** Other versions than this build's: for tests of two that work together. */
  readonly wire?: WireVersions;
}

export class TreeAgent {
  readonly #config: TreeConfig;
  readonly #context: TreeContext;
  readonly #manager: TreeManager;
  readonly #wire: WireVersions;
  readonly #seats = new Map<string, MemberSeat>();
  readonly #tokens: TokenRequests;
  #interior = 0;
  #interiorMs = -Infinity;

  /** Throws `invalid-argument` for a bad configuration, id or zone. */
  constructor({ config, self, random, nowMs, wire = TREE_WIRE }: TreeAgentOptions) {
    this.#config = checkTreeConfig(config);
    checkMemberId(self.id);
    checkZone(self.zone);
    this.#wire = wire;
    this.#context = new TreeContext({ config, self, random, wire, nowMs });
    this.#manager = new TreeManager(this.#context, (image) => this.#reportsTo(image));
    this.#tokens = new TokenRequests(this.#context);
  }

  /** When `step` wants its next tick. */
  get nextMs(): number {
    let next = Math.min(this.#manager.nextMs, this.#context.reach.nextMs, this.#tokens.nextMs);
    for (const seat of this.#seats.values()) next = Math.min(next, seat.nextMs);
    return next;
  }

  /** Undefined: not in that tree, or not placed yet. */
  position(image: string): Position | undefined {
    return this.#seats.get(image)?.position;
  }

  /** Images whose trees this member is in, or wants to be in. */
  images(): readonly string[] {
    return [...this.#seats.keys()];
  }

  /** The trees that this member manages, stands in for, or is to manage. */
  managed(): readonly ManagedTreeReport[] {
    return Array.from(this.#manager.offices, reportOf);
  }

  /** Throws `invalid-argument` for what is no digest, `resource-exhausted` beyond SEATS_MAX. */
  step(input: TreeInput, nowMs: number): readonly TreeEffect[] {
    this.#nowMs = nowMs;
    this.#input(input, nowMs);
    this.#handleLoopback(nowMs);
    return this.#context.takeEffects();
  }

  #nowMs = 0;

  #reportsTo(image: string): ReturnType<TreeManagerRoute> {
    const seat = this.#seats.get(image);
    if (seat?.manager === undefined || !seat.isAnswered(this.#nowMs)) return undefined;
    const { manager, deputy } = seat;
    return deputy === undefined ? { manager } : { manager, deputy };
  }

  #input(input: TreeInput, nowMs: number): void {
    switch (input.kind) {
      case "tick":
        this.#tick(nowMs);
        break;
      case "packet":
        this.#packet(input, nowMs);
        break;
      case "members":
        this.#members(input.list, nowMs);
        break;
      case "seeds":
        this.#context.setSeeds(input.list);
        break;
      case "self":
        this.#becomes(input.self, nowMs);
        break;
      case "join":
        this.#join(checkImage(input.image), nowMs);
        break;
      case "leave":
        this.#leave(input.image);
        break;
      case "held":
      case "serving":
        this.#traffic(input, nowMs);
        break;
      case "complain":
        this.#complain(input, nowMs);
        break;
      case "token":
        this.#tokens.ask(input, this.#seats.get(input.image), nowMs);
    }
  }

  #becomes(self: PeerRef, nowMs: number): void {
    checkZone(self.zone);
    const isOther = self.boot !== this.#context.self.boot || self.id !== this.#context.self.id;
    this.#context.self = self;
    if (!isOther) return;
    this.#manager.clear();
    for (const seat of this.#seats.values()) seat.reset(nowMs);
  }

  #join(image: string, nowMs: number): void {
    if (this.#seats.has(image)) return;
    if (this.#seats.size >= SEATS_MAX) {
      throw new DaemonError("resource-exhausted", `a member of ${SEATS_MAX} trees joins no more`);
    }
    const seat = new MemberSeat(
      this.#context,
      {
        image,
        routeOf: (of, atMs) => this.#manager.routeOf(of, atMs),
        interior: (atMs) => this.#countInterior(atMs),
      },
      nowMs,
    );
    this.#seats.set(image, seat);
    seat.tick(nowMs);
  }

  #leave(image: string): void {
    const seat = this.#seats.get(image);
    if (seat === undefined) return;
    this.#seats.delete(image);
    seat.leave();
    this.#context.effect({ kind: "position", image, position: undefined });
  }

  #traffic(input: TreeInput & { readonly kind: "held" | "serving" }, nowMs: number): void {
    const seat = this.#seats.get(input.image);
    if (seat === undefined) return;
    if (input.kind === "serving") seat.bytesPerSecond = input.bytesPerSecond;
    else seat.heldBlocks = input.blocks;
    seat.trafficMs = nowMs;
  }

  #complain(input: TreeInput & { readonly kind: "complain" }, nowMs: number): void {
    const seat = this.#seats.get(input.image);
    if (seat === undefined) return;
    seat.complain(input.about, input.reason, nowMs);
    seat.tick(nowMs);
  }

  #members(list: readonly TreeMember[], nowMs: number): void {
    const gone = this.#context.members(list, nowMs);
    this.#manager.onMembers(gone, nowMs);
  }

  #countInterior(nowMs: number): number {
    if (nowMs - this.#interiorMs < this.#config.heartbeatMs / 2) return this.#interior;
    this.#interiorMs = nowMs;
    const sinceMs = nowMs - this.#config.trafficMs;
    this.#interior = 0;
    for (const { position, trafficMs } of this.#seats.values()) {
      if (position !== undefined && position.children > 0 && trafficMs >= sinceMs) {
        this.#interior += 1;
      }
    }
    return this.#interior;
  }

  #tick(nowMs: number): void {
    const { reach, ranking } = this.#context;
    const silent = reach.silentCount;
    const { pings, verdicts } = reach.tick(nowMs);
    if (reach.silentCount !== silent) ranking.changed();
    for (const { to, image, nonce } of pings) {
      this.#context.send(to, { kind: "ping", image, nonce });
    }
    for (const verdict of verdicts) {
      this.#context.vanish(verdict.contact.id, nowMs);
      this.#manager.onVerdict(verdict, nowMs);
    }
    for (const seat of this.#seats.values()) if (seat.nextMs <= nowMs) seat.tick(nowMs);
    this.#tokens.tick(nowMs, (image) => this.#seats.get(image));
    this.#manager.tick(nowMs);
  }

  #packet(input: TreeInput & { readonly kind: "packet" }, nowMs: number): void {
    const { sender, content, from } = input;
    this.#context.heard(sender, nowMs);
    let message: TreeMessage;
    try {
      message = decodeTreeMessage(content, this.#wire);
    } catch (error) {
      if (!(error instanceof DaemonError)) throw error;
      // A newer version's messages that an older one need not know.
      if (error.code === "unimplemented") return;
      this.#context.event({ kind: "bad-packet", sender, message: error.message });
      return;
    }
    this.#receive(message, sender, { address: from.address, boot: sender }, nowMs);
  }

  /** What this member has said to itself, as manager and member. */
  #handleLoopback(nowMs: number): void {
    const { boot, address } = this.#context.self;
    for (let round = 0; round < LOOPBACK_ROUNDS_MAX; round += 1) {
      const messages = this.#context.takeLoopback();
      if (messages.length === 0) return;
      for (const message of messages) this.#receive(message, boot, { boot, address }, nowMs);
    }
    this.#context.takeLoopback();
  }

  #receive(message: TreeMessage, sender: string, from: Destination, nowMs: number): void {
    const { image } = message;
    const seat = this.#seats.get(image);
    switch (message.kind) {
      case "report":
        this.#manager.onReport(message, sender, nowMs);
        break;
      case "position":
        if (seat !== undefined) seat.onPosition(message, sender, nowMs);
        else if (message.manager.boot === sender) this.#answerLeft(message, from);
        break;
      case "ack":
        seat?.onAck(message, sender, nowMs);
        break;
      case "wait":
        seat?.onWait(message, nowMs);
        break;
      case "refused":
        if (seat?.position === undefined && seat !== undefined) {
          this.#context.event({ kind: "join-refused", image, reason: message.reason });
        }
        seat?.onRefused(nowMs);
        break;
      case "leave":
        this.#manager.onLeave(message, sender, nowMs);
        break;
      case "gone":
        break;
      case "complaint":
        this.#manager.onComplaint(message, sender, nowMs);
        break;
      case "ping":
        this.#context.send(from, this.#pong(message));
        break;
      case "pong":
        for (const verdict of this.#context.reach.pong(message, sender, nowMs)) {
          this.#manager.onVerdict(verdict, nowMs);
        }
        break;
      case "beat":
        this.#manager.onBeat(message, sender, nowMs);
        break;
      case "beat-ack":
        this.#manager.onBeatAck(image, message.known, sender, nowMs);
        break;
      case "rival":
        this.#manager.onRival(message, sender, nowMs);
        break;
      case "token":
        this.#manager.onToken(message, sender, from, nowMs);
        break;
      case "token-answer":
        this.#tokens.onAnswer(message);
    }
  }

  /** A place in a tree that this member has left: the manager has not heard of it. */
  #answerLeft({ image }: TreeMessage, to: Destination): void {
    this.#context.send(to, { kind: "leave", image, member: this.#context.contact });
  }

  #pong({ image, nonce }: PingMessage): PongMessage {
    const seat = this.#seats.get(image);
    const role = this.#manager.roleOf(image);
    const isManager = role === "manager" || role === "gathering";
    const pong = { kind: "pong", image, nonce, isManager, isMember: seat !== undefined } as const;
    const manager = seat?.isAnswered(this.#nowMs) === true ? seat.manager : undefined;
    const epoch = seat?.position?.epoch;
    return {
      ...pong,
      ...(manager === undefined ? {} : { manager }),
      ...(epoch === undefined ? {} : { epoch }),
    };
  }
}

type TreeManagerRoute = ConstructorParameters<typeof TreeManager>[1];
/** A chain of messages to oneself: report, position, report, ack, and as many again. */
const LOOPBACK_ROUNDS_MAX = 16;
