/** sha256 of large buffers without holding the event loop. */
import { createHash } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import { HASH_SLICE_BYTES } from "./limits.ts";

/** Hashes in slices; other work runs between them. */
export async function sha256Of(bytes: Uint8Array): Promise<Buffer> {
  const hash = createHash("sha256");
  for (let offset = 0; offset < bytes.length; offset += HASH_SLICE_BYTES) {
    if (offset > 0) await nextTurn();
    hash.update(bytes.subarray(offset, offset + HASH_SLICE_BYTES));
  }
  return hash.digest();
}

/** Whether the bytes have the digest. */
export async function hasSha256(bytes: Uint8Array, expected: Uint8Array): Promise<boolean> {
  return (await sha256Of(bytes)).equals(expected);
}
