/**
 * Preloaded into one node's processes (`node --import`): what its TLS servers send of more than 4
 * KiB at a time has one byte changed. What it received and verified itself is right, so it lies to
 * its children alone. From the moment that the file $FAASNET_LIE exists.
 */
import { existsSync } from "node:fs";
import { TLSSocket } from "node:tls";

/** Below are headers, ticks and JSON: a wrong one of those is no wrong block. */
const DATA_BYTES_MIN = 4096;
const file = process.env["FAASNET_LIE"] ?? "";
let isLying = false;

type Write = (this: TLSSocket, chunk: unknown, ...more: unknown[]) => boolean;

function lie(socket: TLSSocket, chunk: unknown): unknown {
  // node:tls sets it on accepted sockets alone.
  const isAccepted = Reflect.get(socket, "server") !== undefined;
  if (!isAccepted || !(chunk instanceof Uint8Array) || chunk.length < DATA_BYTES_MIN) return chunk;
  isLying ||= existsSync(file);
  if (!isLying) return chunk;
  const copy = Buffer.from(chunk); // the original is in its cache
  const at = copy.length >> 1;
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

const real = Reflect.get(TLSSocket.prototype, "write") as Write;
const lying: Write = function (chunk, ...more) {
  return real.call(this, lie(this, chunk), ...more);
};
// Writable and configurable, as node:net itself replaces it on sockets that have ended.
Reflect.set(TLSSocket.prototype, "write", lying);
