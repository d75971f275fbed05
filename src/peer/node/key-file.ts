/**
 * The cluster's keys in a file: one a line, 32 bytes as base64 or 64 hex digits, # comments; the
 * first one seals. Read again while the node runs, so that a rotation needs no restart.
 */
import { readFile, stat } from "node:fs/promises";
import { DaemonError, withContext } from "../../base/errors.ts";
import { KEY_BYTES, KeyRing, KEYS_MAX } from "../transport/key-ring.ts";

/** Room for KEYS_MAX keys and their comments. */
const FILE_BYTES_MAX = 16 * 1024;
/** Read for others than the owner. */
const OTHERS_MODE = 0o077;

export interface KeyFile {
  readonly ring: KeyRing;
  /** Others than the owner can read it. */
  readonly isExposed: boolean;
}

/** Throws `not-found`, `invalid-argument`, …; a message never holds key bytes. */
export async function readKeyFile(path: string): Promise<KeyFile> {
  try {
    const { size, mode } = await stat(path);
    if (size > FILE_BYTES_MAX) {
      throw new DaemonError("invalid-argument", `${size} bytes; at most ${FILE_BYTES_MAX}`);
    }
    const ring = parseKeys(await readFile(path, "utf8"));
    return { ring, isExposed: (mode & OTHERS_MODE) !== 0 };
  } catch (error) {
    throw withContext(error, `cluster key file ${path}`);
  }
}

/** Throws `invalid-argument` naming the line. */
export function parseKeys(text: string): KeyRing {
  const secrets: Uint8Array[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    const key = line.replace(/#.*/, "").trim();
    if (key === "") continue;
    if (secrets.length >= KEYS_MAX) {
      throw new DaemonError("invalid-argument", `more than ${KEYS_MAX} keys`);
    }
    secrets.push(parseKey(key, index + 1));
  }
  return new KeyRing(secrets);
}

function parseKey(text: string, line: number): Uint8Array {
  const isHex = /^[\da-f]{64}$/i.test(text);
  const isBase64 = /^[\w+/-]{43}=?$/.test(text);
  const bytes = Buffer.from(text, isHex ? "hex" : "base64");
  if ((isHex || isBase64) && bytes.length === KEY_BYTES) return bytes;
  throw new DaemonError(
    "invalid-argument",
    `line ${line} is no key; a key is 32 bytes as base64 or as 64 hex digits`,
  );
}

/** Whether both rings hold the same keys in the same order. */
export function isSameRing(one: KeyRing, other: KeyRing): boolean {
  return (
    one.keys.length === other.keys.length &&
    one.keys.every(({ secret }, index) =>
      Buffer.from(secret).equals(other.keys[index]?.secret ?? new Uint8Array()),
    )
  );
}
