/**
 * Packets as the node's parts see them: contents, and destinations whose boot may not be known yet.
 * Below are the seal, the greeting and the socket.
 */
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import type { Random } from "../../base/random.ts";
import type { Destination } from "../membership/effects.ts";
import type { Address, MemberInfo } from "../membership/member.ts";
import { decodeGreeting, encodeGreeting } from "../transport/greeting-codec.ts";
import type { Hello } from "../transport/greeting-codec.ts";
import { Greeting } from "../transport/greeting.ts";
import type { Greeted, GreetingEffect, Now } from "../transport/greeting.ts";
import type { KeyRing } from "../transport/key-ring.ts";
import { Sealer } from "../transport/seal.ts";
import type { Refusal } from "../transport/seal.ts";
import { versionsText } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";

/** The first byte of what is sealed. */
export const CONTENT = { membership: 1, tree: 2, greeting: 3 } as const;

/**
 * An open packet of three bytes: 3:u8 keyId:u16. "I do not have the key that you seal with."
 * Anybody could say so: it is a hint for operators and changes nothing.
 */
const NOTICE_KIND = 3;
const NOTICE_BYTES = 3;
/** Notices sent in one second: strangers may send what they like. */
const NOTICES_PER_SECOND_MAX = 10;
const NS_PER_MS = 1_000_000n;

export interface PacketSink {
  send(packet: Uint8Array, to: Address): void;
}

/** Why a packet was not used: the seal's reasons, and those behind it. */
export type PacketRefusal = Refusal | "bad-content" | "other-version";

export interface PacketHandlers {
  /** `content` is without its first byte. Throws a DaemonError for content that is not right. */
  onContent(kind: "membership" | "tree", from: Required<Destination>, content: Uint8Array): void;
  onGreeted(greeted: Greeted): void;
  onUnanswered(address: Address): void;
  onRefused(reason: PacketRefusal, from: Address, detail: string): void;
  onKeyUnknownThere(from: Address): void;
  /** What a welcome says. */
  self(): { readonly incarnation: number; readonly member: MemberInfo };
}

export interface PacketPortOptions {
  readonly ring: KeyRing;
  readonly boot: string;
  readonly versions: WireVersions;
  readonly socket: PacketSink;
  readonly random: Random;
  readonly clock: Clock;
  readonly handlers: PacketHandlers;
}

export class PacketPort {
  readonly #options: PacketPortOptions;
  readonly #sealer: Sealer;
  readonly #greeting: Greeting;
  #ring: KeyRing;
  #notices = { second: 0, count: 0 };

  constructor(options: PacketPortOptions) {
    const { ring, boot, random, versions } = options;
    this.#options = options;
    this.#ring = ring;
    this.#sealer = new Sealer(ring, boot);
    this.#greeting = new Greeting({ random, versions });
  }

  get nextMs(): number {
    return this.#greeting.nextMs;
  }

  /** Packets that waited for a welcome which did not come, or found no place to wait. */
  get dropped(): number {
    return this.#greeting.dropped;
  }

  /** `isAsking`: an answer has to come; when it does not, the receiver is greeted again. */
  send(
    kind: "membership" | "tree",
    to: Destination,
    content: Uint8Array,
    { isAsking }: { readonly isAsking: boolean },
  ): void {
    const whole = new Uint8Array(content.length + 1);
    whole[0] = CONTENT[kind];
    whole.set(content, 1);
    this.#run(this.#greeting.send(to, whole, this.#now(isAsking)));
  }

  bootAt(address: Address): string | undefined {
    return this.#greeting.bootAt(address);
  }

  greet(address: Address): void {
    this.#run(this.#greeting.greet(address, this.#now()));
  }

  /** Gossip says which boot is at an address. */
  learn(address: Address, boot: string): void {
    this.#run(this.#greeting.learn(address, boot));
  }

  tick(): void {
    this.#run(this.#greeting.tick(this.#now()));
  }

  renew(boot: string): void {
    this.#sealer.renew(boot);
    this.#greeting.restart();
  }

  rotate(ring: KeyRing): void {
    this.#ring = ring;
    this.#sealer.rotate(ring);
  }

  /** Never throws, whatever the packet is. */
  receive(packet: Uint8Array, from: Address): void {
    const { handlers } = this.#options;
    if (packet[0] === NOTICE_KIND && packet.length === NOTICE_BYTES) {
      const keyId = (packet[1] ?? 0) * 256 + (packet[2] ?? 0);
      if (keyId === this.#ring.primary.id) handlers.onKeyUnknownThere(from);
      return;
    }
    const opened = this.#sealer.open(packet);
    if (opened.kind === "refused") {
      handlers.onRefused(opened.reason, from, "");
      if (opened.reason === "unknown-key") this.#sendNotice(packet, from);
      return;
    }
    try {
      if (opened.kind === "hello") this.#onHello(opened.content, opened.sender, from);
      else this.#onMember(opened.content, { address: from, boot: opened.sender });
    } catch (error) {
      if (!(error instanceof DaemonError)) throw error;
      const reason = error.code === "failed-precondition" ? "other-version" : "bad-content";
      handlers.onRefused(reason, from, error.message);
    }
  }

  #onHello(content: Uint8Array, sender: string, from: Address): void {
    if (content[0] !== CONTENT.greeting) return;
    const hello = decodeGreeting(content.subarray(1));
    const { nowMs, wallMs } = this.#now();
    if (hello.kind !== "hello" || !this.#greeting.mayWelcome(nowMs)) return;
    const version = commonVersion(hello.versions, this.#options.versions);
    if (version === 0) {
      const detail = `it speaks version ${versionsText(hello.versions)}, this node `;
      const own = versionsText(this.#options.versions);
      this.#options.handlers.onRefused("other-version", from, detail + own);
    }
    const self = this.#options.handlers.self();
    const { nonce } = hello;
    const welcome = encodeGreeting({ kind: "welcome", version, nonce, wallMs, ...self });
    const answer = new Uint8Array(welcome.length + 1);
    answer[0] = CONTENT.greeting;
    answer.set(welcome, 1);
    this.#options.socket.send(this.#sealer.seal(sender, answer), from);
  }

  #onMember(content: Uint8Array, from: Required<Destination>): void {
    const kind = content[0];
    const rest = content.subarray(1);
    if (kind === CONTENT.greeting) {
      this.#onWelcome(rest, from);
      return;
    }
    this.#run(this.#greeting.heard(from.address, from.boot));
    if (kind === CONTENT.membership) this.#options.handlers.onContent("membership", from, rest);
    // Content of a kind that a later version adds is skipped.
    if (kind === CONTENT.tree) this.#options.handlers.onContent("tree", from, rest);
  }

  #onWelcome(content: Uint8Array, from: Required<Destination>): void {
    const welcome = decodeGreeting(content);
    if (welcome.kind !== "welcome") return;
    const answer = this.#greeting.onWelcome(welcome, from.boot, this.#now().nowMs);
    if (answer === undefined) return;
    this.#run(answer.effects);
    this.#options.handlers.onGreeted(answer.greeted);
  }

  #sendNotice(packet: Uint8Array, from: Address): void {
    const second = Math.floor(this.#now().nowMs / 1000);
    if (this.#notices.second !== second) this.#notices = { second, count: 0 };
    this.#notices.count += 1;
    if (this.#notices.count > NOTICES_PER_SECOND_MAX) return;
    const notice = Uint8Array.of(NOTICE_KIND, packet[1] ?? 0, packet[2] ?? 0);
    this.#options.socket.send(notice, from);
  }

  #run(effects: readonly GreetingEffect[]): void {
    const { socket, handlers } = this.#options;
    for (const effect of effects) {
      switch (effect.kind) {
        case "packet":
          socket.send(this.#sealer.seal(effect.boot, effect.content), effect.to);
          break;
        case "hello": {
          const content = new Uint8Array(effect.content.length + 1);
          content[0] = CONTENT.greeting;
          content.set(effect.content, 1);
          socket.send(this.#sealer.seal(undefined, content), effect.to);
          break;
        }
        case "unanswered":
          handlers.onUnanswered(effect.address);
      }
    }
  }

  #now(isAsking = false): Now & { readonly isAsking: boolean } {
    const { clock } = this.#options;
    return {
      nowMs: clock.nowMs(),
      isAsking,
      get wallMs() {
        return Number(clock.wallNs() / NS_PER_MS);
      },
    };
  }
}

/** The highest that both speak; 0: none. */
export function commonVersion(one: Hello["versions"], other: WireVersions): number {
  const highest = Math.min(one.highest, other.highest);
  return highest >= Math.max(one.lowest, other.lowest) ? highest : 0;
}
