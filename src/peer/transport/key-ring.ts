/**
 * The cluster's keys, the one to seal with first. Rotation without downtime: the new key is added
 * behind the old one on every node, then moved to the front on every node, then the old one goes.
 */
import { hash } from "node:crypto";
import { DaemonError } from "../../base/errors.ts";

/** AES-256. */
export const KEY_BYTES = 32;
/** Keys at a time: rotation needs two, a rotation that was left half-way a third. */
export const KEYS_MAX = 8;
const KEY_ID_BYTES = 2;

export interface ClusterKey {
  /** Names the key in a packet, so that no other has to be tried. Tells nothing of the key. */
  readonly id: number;
  readonly secret: Uint8Array;
}

export class KeyRing {
  readonly keys: readonly ClusterKey[];
  readonly primary: ClusterKey;

  /** Throws `invalid-argument`; a message never holds key bytes. */
  constructor(secrets: readonly Uint8Array[]) {
    if (secrets.length > KEYS_MAX) {
      throw new DaemonError("invalid-argument", `${secrets.length} cluster keys; at most 8`);
    }
    this.keys = secrets.map((secret, index) => {
      if (secret.length !== KEY_BYTES) {
        const what = `cluster key ${index + 1} has ${secret.length} bytes; it has to have 32`;
        throw new DaemonError("invalid-argument", what);
      }
      return { id: keyId(secret), secret };
    });
    const [primary] = this.keys;
    if (primary === undefined) throw new DaemonError("invalid-argument", "no cluster key");
    if (new Set(this.keys.map(({ id }) => id)).size < this.keys.length) {
      throw new DaemonError("invalid-argument", "two cluster keys are equal or have one key id");
    }
    this.primary = primary;
  }

  get(id: number): ClusterKey | undefined {
    return this.keys.find((key) => key.id === id);
  }
}

function keyId(secret: Uint8Array): number {
  return derive(secret, new Uint8Array(), "faasnet key id", KEY_ID_BYTES).readUInt16BE();
}

/** Bytes of SHA-256, and so the most that one round of HKDF gives; of its blocks. */
const HASH_BYTES = 32;
const BLOCK_BYTES = 64;
/** HMAC's inner and outer padding (RFC 2104). */
const INNER = 0x36;
const OUTER = 0x5c;
/** A padded key, and behind it what is hashed: the cluster key, an inner hash or an info. */
const scratch = Buffer.alloc(2 * BLOCK_BYTES);

/**
 * HKDF with SHA-256 (RFC 5869), one round: at most 32 bytes. Written out because it is done for
 * every sender that is heard for the first time: node's hkdfSync takes six times as long, its Hmac
 * twice, for the objects that they make. `salt` and `info`: below 64 bytes.
 */
export function derive(secret: Uint8Array, salt: Uint8Array, info: string, bytes: number): Buffer {
  if (bytes > HASH_BYTES) throw new DaemonError("internal", `${bytes} bytes of one HKDF round`);
  const extracted = hmac(latin1(salt), latin1(secret));
  const expanded = hmac(extracted, `${info}\u0001`);
  scratch.fill(0);
  return Buffer.from(expanded, "latin1").subarray(0, bytes);
}

/** HMAC with SHA-256 (RFC 2104) of bytes as latin1 text, both below a block's length. */
function hmac(key: string, text: string): string {
  if (key.length >= BLOCK_BYTES || text.length >= BLOCK_BYTES) {
    throw new DaemonError("internal", "an HMAC of more than a block");
  }
  pad(key, INNER);
  const length = scratch.write(text, BLOCK_BYTES, "latin1");
  const inner = hash("sha256", scratch.subarray(0, BLOCK_BYTES + length), "binary");
  pad(key, OUTER);
  scratch.write(inner, BLOCK_BYTES, "latin1");
  return hash("sha256", scratch.subarray(0, BLOCK_BYTES + HASH_BYTES), "binary");
}

function pad(key: string, padding: number): void {
  for (let at = 0; at < BLOCK_BYTES; at += 1) {
    scratch[at] = (at < key.length ? key.charCodeAt(at) : 0) ^ padding;
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}
