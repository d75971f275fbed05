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
import { createCipheriv, createDecipheriv } from "node:crypto";
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
const HEADER_BYTES = 1 + 2 + BOOT_BYTES + 8;
/** Bytes of content that one packet holds. */
export const CONTENT_BYTES_MAX = PACKET_BYTES_MAX - HEADER_BYTES - TAG_BYTES;
/**
 * Senders whose counters are remembered, twice the members of the largest cluster. A sender that
 * was forgotten starts a new window: its old packets would be taken once more.
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
  #sealKey: Uint8Array;
  #counter = 0n;
  /** Senders that have shown the key: a stranger cannot make an entry. */
  readonly #senders = new RecentMap<string, Sender>(SENDERS_MAX);

  constructor(ring: KeyRing, boot: string) {
    this.#ring = ring;
    this.#boot = bootBytes(boot);
    this.#sealKey = senderKey(ring.primary.secret, this.#boot);
  }

  /** Seals with and opens for another boot from now on: after a clone, before anything is sent. */
  renew(boot: string): void {
    this.#boot = bootBytes(boot);
    this.#sealKey = senderKey(this.#ring.primary.secret, this.#boot);
    this.#counter = 0n;
  }

  /** Other keys from now on. Counters go on: the next key may be one that was used before. */
  rotate(ring: KeyRing): void {
    this.#ring = ring;
    this.#sealKey = senderKey(ring.primary.secret, this.#boot);
    for (const sender of this.#senders.values()) sender.keys.clear();
  }

  /** For the boot `receiver`, or for whoever hears it: a hello. Throws when it does not fit. */
  seal(receiver: string | undefined, content: Uint8Array): Uint8Array {
    if (content.length > CONTENT_BYTES_MAX) {
      throw new DaemonError("internal", `packet content of ${content.length} bytes`);
    }
    if (this.#counter >= COUNTER_MAX)
      throw new DaemonError("internal", "packet counter is used up");
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt8(receiver === undefined ? KINDS.hello : KINDS.member);
    header.writeUInt16BE(this.#ring.primary.id, 1);
    this.#boot.copy(header, 3);
    header.writeBigUInt64BE(this.#counter, 3 + BOOT_BYTES);
    this.#counter += 1n;
    const cipher = createCipheriv("aes-256-gcm", this.#sealKey, nonceOf(header));
    cipher.setAAD(Buffer.concat([header, receiver === undefined ? NOBODY : bootBytes(receiver)]));
    const sealed = cipher.update(content);
    cipher.final();
    return Buffer.concat([header, sealed, cipher.getAuthTag()]);
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
    const bytes = Buffer.from(packet.buffer, packet.byteOffset, packet.length);
    const header = bytes.subarray(0, HEADER_BYTES);
    const boot = header.subarray(3, 3 + BOOT_BYTES);
    if (boot.equals(this.#boot)) return refused("own");
    const keyId = header.readUInt16BE(1);
    const key = this.#ring.get(keyId);
    if (key === undefined) return refused("unknown-key");
    const name = boot.toString("hex");
    const known = this.#senders.get(name);
    const openKey = known?.keys.get(keyId) ?? senderKey(key.secret, boot);
    const content = decrypt(bytes, openKey, kind === "hello" ? NOBODY : this.#boot);
    if (content === undefined) return refused("forged");
    const sender = known ?? { keys: new Map<number, Uint8Array>(), window: new ReplayWindow() };
    sender.keys.set(keyId, openKey);
    if (known === undefined) this.#senders.set(name, sender);
    // A hello may come twice: it says nothing, and its sender may never have been heard here.
    const isNew = sender.window.accept(header.readBigUInt64BE(3 + BOOT_BYTES));
    if (!isNew && kind === "member") return refused("replayed");
    return { kind, sender: name, content };
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

function nonceOf(header: Buffer): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  header.copy(nonce, NONCE_BYTES - 8, 3 + BOOT_BYTES);
  return nonce;
}

function decrypt(packet: Buffer, key: Uint8Array, receiver: Uint8Array): Uint8Array | undefined {
  const header = packet.subarray(0, HEADER_BYTES);
  const tagAt = packet.length - TAG_BYTES;
  const decipher = createDecipheriv("aes-256-gcm", key, nonceOf(header));
  decipher.setAAD(Buffer.concat([header, receiver]));
  decipher.setAuthTag(packet.subarray(tagAt));
  const content = decipher.update(packet.subarray(HEADER_BYTES, tagAt));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return content;
}
