/**
 * Preloaded into one node's processes (`node --import`): what its HTTP servers send of more than 4
 * KiB at a time has one byte changed. What it received and verified itself is right, so it lies to
 * its children alone. From the moment that the file $FAASNET_LIE exists.
 */
import { existsSync } from "node:fs";
import { OutgoingMessage, ServerResponse } from "node:http";

/** Below are headers, frames of their own and JSON: a wrong one of those is no wrong block. */
const DATA_BYTES_MIN = 4096;
const file = process.env["FAASNET_LIE"] ?? "";
let isLying = false;

type Write = (this: OutgoingMessage, chunk: unknown, ...more: unknown[]) => boolean;

function lie(message: OutgoingMessage, chunk: unknown): unknown {
  if (!(message instanceof ServerResponse) || !(chunk instanceof Uint8Array)) return chunk;
  if (chunk.length < DATA_BYTES_MIN) return chunk;
  isLying ||= existsSync(file);
  if (!isLying) return chunk;
  const copy = Buffer.from(chunk); // the original is in its cache
  const at = copy.length >> 1;
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

for (const name of ["write", "end"] as const) {
  const real = Reflect.get(OutgoingMessage.prototype, name) as Write;
  const lying: Write = function (chunk, ...more) {
    return real.call(this, lie(this, chunk), ...more);
  };
  Object.defineProperty(OutgoingMessage.prototype, name, { value: lying });
}
