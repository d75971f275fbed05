/**
 * Sealed packets: only members can make or read them, and each is taken once, by the boot that it
 * was made for.
 *
 *     packet := kind:u8 keyId:u16 sender:16 counter:u64 sealed tag:16        (big-endian)
 *
 * AES-256-GCM under HKDF(cluster key, salt = the sender's boot id), nonce = the counter: no two
 * senders share a key, so no nonce is ever used twice (one cluster-wide key with random nonces
 * would pass NIST SP 800-38D's limit in days). Header and the receiver's boot id are authenticated
 * beside: a packet for an earlier boot, or for another member, opens nowhere.
 *
 * Who does not know the receiver's boot yet sends a packet of kind `hello`, made for nobody. It can
 * be replayed, so all that a hello may bring about is an answer that is no longer than itself.
 */
import { createCipheriv, createDecipheriv, createSecretKey } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { DaemonError } from "../../base/errors.ts";
import { derive } from "./key-ring.ts";
import type { KeyRing } from "./key-ring.ts";
import { RecentMap } from "./recent-map.ts";
import { ReplayWindow } from "./replay-window.ts";

/** IPv6's least MTU (1280) without IPv6's and UDP's headers: never fragmented. */
export const PACKET_BYTES_MAX = 1232;
export const BOOT_BYTES = 16;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
const KEY_BYTES = 32;
/** kind, key id, sender, counter. */
const COUNTER_BYTES = 8;
const COUNTER_AT = 1 + 2 + BOOT_BYTES;
const HEADER_BYTES = COUNTER_AT + COUNTER_BYTES;
/** Bytes of content that one packet holds. */
export const CONTENT_BYTES_MAX = PACKET_BYTES_MAX - HEADER_BYTES - TAG_BYTES;
/**
 * Senders whose counters are remembered, twice the members of the largest cluster: as many as it
 * has are never forgotten. A sender that was starts a new window: its old packets would be taken
 * once more.
 */
const SENDERS_MAX = 32_768;
const COUNTER_MAX = 2n ** 64n - 1n;
const NOBODY = new Uint8Array(BOOT_BYTES);

const KINDS = { member: 1, hello: 2 } as const;
export type SealKind = keyof typeof KINDS;

/** Why a packet was not taken; for counters and for telling operators what is wrong. */
export type Refusal = "malformed" | "unknown-key" | "forged" | "replayed" | "own";

export type Opened =
  | {
      readonly kind: SealKind;
      /** 32 hex digits. */
      readonly sender: string;
      readonly content: Uint8Array;
    }
  | { readonly kind: "refused"; readonly reason: Refusal };

interface Sender {
  readonly keys: Map<number, Uint8Array>;
  readonly window: ReplayWindow;
}

export class Sealer {
  #ring: KeyRing;
  #boot: Buffer;
  /** The same as 32 hex digits. */
  #name: string;
  #sealKey: KeyObject;
  #counter = 0n;
  readonly #aad = Buffer.alloc(HEADER_BYTES + BOOT_BYTES);
  readonly #nonce = Buffer.alloc(NONCE_BYTES);
  /** Senders that have shown the key: a stranger cannot make an entry. */
  readonly #senders = new RecentMap<string, Sender>(SENDERS_MAX);

  constructor(ring: KeyRing, boot: string) {
    this.#ring = ring;
    this.#boot = bootBytes(boot);
    this.#name = this.#boot.toString("hex");
    this.#sealKey = createSecretKey(senderKey(ring.primary.secret, this.#boot));
  }

  /** Seals with and opens for another boot from now on: after a clone, before anything is sent. */
  renew(boot: string): void {
    this.#boot = bootBytes(boot);
    this.#name = this.#boot.toString("hex");
    this.#sealKey = createSecretKey(senderKey(this.#ring.primary.secret, this.#boot));
    this.#counter = 0n;
  }

  /** Other keys from now on. Counters go on: the next key may be one that was used before. */
  rotate(ring: KeyRing): void {
    this.#ring = ring;
    this.#sealKey = createSecretKey(senderKey(ring.primary.secret, this.#boot));
    for (const sender of this.#senders.values()) sender.keys.clear();
  }

  /** For the boot `receiver`, or for whoever hears it: a hello. Throws when it does not fit. */
  seal(receiver: string | undefined, content: Uint8Array): Uint8Array {
    if (content.length > CONTENT_BYTES_MAX) {
      throw new DaemonError("internal", `packet content of ${content.length} bytes`);
    }
    if (this.#counter >= COUNTER_MAX)
      throw new DaemonError("internal", "packet counter is used up");
    const packet = Buffer.allocUnsafe(HEADER_BYTES + content.length + TAG_BYTES);
    packet.writeUInt8(receiver === undefined ? KINDS.hello : KINDS.member);
    packet.writeUInt16BE(this.#ring.primary.id, 1);
    this.#boot.copy(packet, 3);
    packet.writeBigUInt64BE(this.#counter, COUNTER_AT);
    this.#counter += 1n;
    const cipher = createCipheriv("aes-256-gcm", this.#sealKey, this.#nonceOf(packet));
    cipher.setAAD(this.#aadFor(packet, receiver));
    packet.set(cipher.update(content), HEADER_BYTES);
    cipher.final();
    packet.set(cipher.getAuthTag(), HEADER_BYTES + content.length);
    return packet;
  }

  open(packet: Uint8Array): Opened {
    const kind = packet[0] === KINDS.member ? "member" : packet[0] === KINDS.hello ? "hello" : "";
    if (
      kind === "" ||
      packet.length < HEADER_BYTES + TAG_BYTES ||
      packet.length > PACKET_BYTES_MAX
    ) {
      return refused("malformed");
    }
    const bytes = Buffer.isBuffer(packet)
      ? packet
      : Buffer.from(packet.buffer, packet.byteOffset, packet.length);
    const name = bytes.toString("hex", 3, COUNTER_AT);
    if (name === this.#name) return refused("own");
    const keyId = bytes.readUInt16BE(1);
    const key = this.#ring.get(keyId);
    if (key === undefined) return refused("unknown-key");
    const known = this.#senders.get(name);
    const knownKey = known?.keys.get(keyId);
    const openKey = knownKey ?? senderKey(key.secret, bytes.subarray(3, COUNTER_AT));
    const content = this.#decrypt(bytes, openKey, kind === "hello" ? NOBODY : this.#boot);
    if (content === undefined) return refused("forged");
    const sender = known ?? { keys: new Map<number, Uint8Array>(), window: new ReplayWindow() };
    if (knownKey === undefined) sender.keys.set(keyId, openKey);
    if (known === undefined) this.#senders.set(name, sender);
    // A hello may come twice: it says nothing, and its sender may never have been heard here.
    const isNew = sender.window.accept(bytes.readBigUInt64BE(COUNTER_AT));
    if (!isNew && kind === "member") return refused("replayed");
    return { kind, sender: name, content };
  }

  #decrypt(packet: Buffer, key: Uint8Array, receiver: Uint8Array): Uint8Array | undefined {
    const tagAt = packet.length - TAG_BYTES;
    const decipher = createDecipheriv("aes-256-gcm", key, this.#nonceOf(packet));
    decipher.setAAD(this.#aadOf(packet, receiver));
    decipher.setAuthTag(packet.subarray(tagAt));
    const content = decipher.update(packet.subarray(HEADER_BYTES, tagAt));
    try {
      decipher.final();
    } catch {
      return undefined;
    }
    return content;
  }

  #aadFor(packet: Buffer, receiver: string | undefined): Buffer {
    if (receiver === undefined) return this.#aadOf(packet, NOBODY);
    packet.copy(this.#aad, 0, 0, HEADER_BYTES);
    const bytes = this.#aad.write(receiver, HEADER_BYTES, "hex");
    if (bytes === BOOT_BYTES && receiver.length === 2 * BOOT_BYTES) return this.#aad;
    throw new DaemonError("invalid-argument", `not a boot id: ${receiver}`);
  }

  /** Valid until the next call, as is the nonce: a cipher copies both. */
  #aadOf(packet: Buffer, receiver: Uint8Array): Buffer {
    packet.copy(this.#aad, 0, 0, HEADER_BYTES);
    this.#aad.set(receiver, HEADER_BYTES);
    return this.#aad;
  }

  #nonceOf(packet: Buffer): Buffer {
    packet.copy(this.#nonce, NONCE_BYTES - COUNTER_BYTES, COUNTER_AT, HEADER_BYTES);
    return this.#nonce;
  }
}

function refused(reason: Refusal): Opened {
  return { kind: "refused", reason };
}

function bootBytes(boot: string): Buffer {
  const bytes = Buffer.from(boot, "hex");
  if (bytes.length !== BOOT_BYTES || boot.length !== 2 * BOOT_BYTES) {
    throw new DaemonError("invalid-argument", `not a boot id: ${boot}`);
  }
  return bytes;
}

function senderKey(secret: Uint8Array, boot: Uint8Array): Uint8Array {
  return derive(secret, boot, "faasnet gossip 1", KEY_BYTES);
}
