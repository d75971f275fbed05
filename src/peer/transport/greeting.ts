/**
 * Which boot is at which address. A packet can be sealed only for a boot that is known (seal.ts):
 * the first one to a stranger waits here while a hello asks who is there; and when somebody who has
 * to answer is silent, a hello finds out whether it has been started again since. Pure: the caller
 * has the clock and the socket.
 */
import type { Random } from "../../base/random.ts";
import type { Address, Destination } from "../membership/index.ts";
import { encodeGreeting, NONCE_BYTES } from "./greeting-codec.ts";
import type { Hello, Welcome } from "./greeting-codec.ts";
import { RecentMap } from "./recent-map.ts";

/** Addresses whose boot is remembered: twice the members of the largest cluster. */
const KNOWN_MAX = 32_768;
/** Hellos under way at once; a packet for one more address is dropped. */
export const GREETINGS_MAX = 4096;
/** Packets that wait for one welcome, and bytes that wait for all of them. */
export const WAITING_PACKETS_MAX = 16;
export const WAITING_BYTES_MAX = 4 * 1024 * 1024;
/** Packets that have to be answered and were not yet. */
const AWAITED_MAX = 16_384;
/** Silence after which a hello is sent beside, ms: below a probe's timeout of 500. */
const SILENT_MS = 400;
/** The first hello is repeated after this, ms, the next after twice that, and so on. */
const HELLO_AGAIN_MS = 200;
/** Hellos to one address before it is given up: 200 ms · (2^6 - 1), 12.6 s in all. */
const HELLOS_MAX = 6;
/** Answers to hellos in one second; the cost of a flood of repeated ones is bounded by it. */
export const WELCOMES_PER_SECOND_MAX = 20_000;

export type GreetingEffect =
  /** To be sealed for nobody. */
  | { readonly kind: "hello"; readonly to: Address; readonly content: Uint8Array }
  /** To be sealed for this boot. */
  | {
      readonly kind: "packet";
      readonly to: Address;
      readonly boot: string;
      readonly content: Uint8Array;
    }
  /** Nobody there, or nobody with our key; what waited for it is gone. */
  | { readonly kind: "unanswered"; readonly address: Address };

/** What a welcome has told. */
export interface Greeted {
  readonly address: Address;
  readonly boot: string;
  readonly roundTripMs: number;
  /** How far its wall clock is ahead of ours, ms; as exact as half the round trip. */
  readonly clockAheadMs: number;
  readonly welcome: Welcome;
}

/** Both clocks; the wall clock is read for hellos alone. */
export interface Now {
  readonly nowMs: number;
  /** ms since 1970. */
  readonly wallMs: number;
}

interface Pending {
  readonly address: Address;
  /** Without its last byte, which counts the hellos. */
  readonly nonce: string;
  readonly sent: { readonly atMs: number; readonly wallMs: number }[];
  nextMs: number;
  readonly packets: Uint8Array[];
}

const NOTHING: readonly GreetingEffect[] = [];

export interface GreetingOptions {
  readonly random: Random;
  readonly versions: Hello["versions"];
}

export class Greeting {
  readonly #random: Random;
  readonly #versions: Hello["versions"];
  readonly #boots = new RecentMap<string, string>(KNOWN_MAX);
  readonly #pending = new Map<string, Pending>();
  /** Addresses of `#pending` by nonce. */
  readonly #nonces = new Map<string, string>();
  /** When the oldest packet that has to be answered was sent, by address, oldest first. */
  readonly #awaited = new Map<string, { readonly address: Address; readonly sinceMs: number }>();
  /** Not after the next hello's time. */
  #nextHelloMs = Infinity;
  #waitingBytes = 0;
  #welcomes = { second: 0, count: 0 };
  /** Packets that found no place to wait. */
  dropped = 0;

  constructor({ random, versions }: GreetingOptions) {
    this.#random = random;
    this.#versions = versions;
  }

  /** Greetings under way. */
  get pending(): number {
    return this.#pending.size;
  }

  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** When `tick` has something to do. */
  get nextMs(): number {
    const [oldest] = this.#awaited.values();
    const silentMs = oldest === undefined ? Infinity : oldest.sinceMs + SILENT_MS;
    return Math.min(this.#nextHelloMs, silentMs);
  }

  bootAt(address: Address): string | undefined {
    return this.#boots.get(keyOf(address));
  }

  /**
   * Where `content` goes. What was heard at the address itself counts more than the boot in `to`,
   * which somebody else has said. `isAsking`: the receiver has to answer.
   */
  send(
    to: Destination,
    content: Uint8Array,
    now: Now & { readonly isAsking: boolean },
  ): readonly GreetingEffect[] {
    const key = keyOf(to.address);
    const boot = this.#boots.get(key) ?? to.boot;
    if (boot !== undefined) {
      if (now.isAsking && !this.#awaited.has(key) && this.#awaited.size < AWAITED_MAX) {
        this.#awaited.set(key, { address: to.address, sinceMs: now.nowMs });
      }
      return [{ kind: "packet", to: to.address, boot, content }];
    }
    const effects = this.greet(to.address, now);
    const pending = this.#pending.get(key);
    if (
      pending === undefined ||
      pending.packets.length >= WAITING_PACKETS_MAX ||
      this.#waitingBytes + content.length > WAITING_BYTES_MAX
    ) {
      this.dropped += 1;
      return effects;
    }
    pending.packets.push(content);
    this.#waitingBytes += content.length;
    return effects;
  }

  /** Asks who is at an address, unless that is being asked already. */
  greet(address: Address, now: Now): readonly GreetingEffect[] {
    const key = keyOf(address);
    if (this.#pending.has(key) || this.#pending.size >= GREETINGS_MAX) return [];
    const nonce = Buffer.from(this.#random.bytes(NONCE_BYTES - 1)).toString("hex");
    const pending: Pending = { address, nonce, sent: [], nextMs: now.nowMs, packets: [] };
    this.#pending.set(key, pending);
    this.#nonces.set(nonce, key);
    return [this.#hello(pending, now)];
  }

  /** Whether a hello may be answered now. */
  mayWelcome(nowMs: number): boolean {
    const second = Math.floor(nowMs / 1000);
    if (this.#welcomes.second !== second) this.#welcomes = { second, count: 0 };
    this.#welcomes.count += 1;
    return this.#welcomes.count <= WELCOMES_PER_SECOND_MAX;
  }

  /** Undefined for an answer to nothing. `sender` is the boot that the seal proves. */
  onWelcome(
    welcome: Welcome,
    sender: string,
    nowMs: number,
  ): { readonly greeted: Greeted; readonly effects: readonly GreetingEffect[] } | undefined {
    const nonce = welcome.nonce.slice(0, -2);
    const pending = this.#pending.get(this.#nonces.get(nonce) ?? "");
    const sent = pending?.sent[Number.parseInt(welcome.nonce.slice(-2), 16)];
    if (pending === undefined || sent === undefined || welcome.member.boot !== sender) {
      return undefined;
    }
    const { address } = pending;
    const roundTripMs = nowMs - sent.atMs;
    const clockAheadMs = welcome.wallMs - (sent.wallMs + roundTripMs / 2);
    return {
      greeted: { address, boot: sender, roundTripMs, clockAheadMs, welcome },
      effects: this.learn(address, sender),
    };
  }

  /** A member packet of this boot came from this address. */
  heard(address: Address, boot: string): readonly GreetingEffect[] {
    return this.learn(address, boot);
  }

  /** The boot at an address is known now: what waited for it goes out. */
  learn(address: Address, boot: string): readonly GreetingEffect[] {
    const key = keyOf(address);
    if (this.#boots.get(key) !== boot) this.#boots.set(key, boot);
    this.#awaited.delete(key);
    if (!this.#pending.has(key)) return NOTHING;
    return this.#end(key).map((content) => ({ kind: "packet", to: address, boot, content }));
  }

  tick(now: Now): readonly GreetingEffect[] {
    const { nowMs } = now;
    const effects: GreetingEffect[] = [];
    for (const [key, { address, sinceMs }] of this.#awaited) {
      if (sinceMs + SILENT_MS > nowMs) break;
      this.#awaited.delete(key);
      effects.push(...this.greet(address, now));
    }
    if (nowMs < this.#nextHelloMs) return effects;
    this.#nextHelloMs = Infinity;
    for (const [key, pending] of this.#pending) {
      if (pending.nextMs > nowMs) {
        this.#nextHelloMs = Math.min(this.#nextHelloMs, pending.nextMs);
        continue;
      }
      if (pending.sent.length < HELLOS_MAX) effects.push(this.#hello(pending, now));
      else {
        this.dropped += this.#end(key).length;
        effects.push({ kind: "unanswered", address: pending.address });
      }
    }
    return effects;
  }

  /** After a change of the own boot: a welcome for the earlier one would not open. */
  restart(): void {
    for (const key of [...this.#pending.keys()]) this.dropped += this.#end(key).length;
  }

  #hello(pending: Pending, { nowMs, wallMs }: Now): GreetingEffect {
    const count = pending.sent.length;
    pending.sent.push({ atMs: nowMs, wallMs });
    pending.nextMs = nowMs + HELLO_AGAIN_MS * 2 ** count;
    this.#nextHelloMs = Math.min(this.#nextHelloMs, pending.nextMs);
    const nonce = pending.nonce + count.toString(16).padStart(2, "0");
    const hello: Hello = { kind: "hello", versions: this.#versions, nonce, wallMs };
    return { kind: "hello", to: pending.address, content: encodeGreeting(hello) };
  }

  /** Takes what waited. */
  #end(key: string): readonly Uint8Array[] {
    const pending = this.#pending.get(key);
    if (pending === undefined) return [];
    this.#pending.delete(key);
    this.#nonces.delete(pending.nonce);
    for (const { length } of pending.packets) this.#waitingBytes -= length;
    return pending.packets;
  }
}

export function keyOf({ host, port }: Address): string {
  return `${host} ${port}`;
}
