/**
 * The cluster's keys, the one to seal with first. Rotation without downtime: the new key is added
 * behind the old one on every node, then moved to the front on every node, then the old one goes.
 */
import { createHmac } from "node:crypto";
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

/** Bytes of SHA-256, and so the most that one round of HKDF gives. */
const HASH_BYTES = 32;

/**
 * HKDF with SHA-256 (RFC 5869), one round: at most 32 bytes. Written out because it is done for
 * every sender that is heard for the first time, and node's hkdfSync takes five times as long.
 */
export function derive(secret: Uint8Array, salt: Uint8Array, info: string, bytes: number): Buffer {
  if (bytes > HASH_BYTES) throw new DaemonError("internal", `${bytes} bytes of one HKDF round`);
  const extracted = createHmac("sha256", salt).update(secret).digest();
  const expanded = createHmac("sha256", extracted).update(info).update("\u0001").digest();
  return expanded.subarray(0, bytes);
}
