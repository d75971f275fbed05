/**
 * Decodes one block of a gzip blob. A block starts at a member header, or inside a member at any
 * bit of a byte, at the border of two deflate blocks, with the 32 KiB before it as the window; it
 * may hold several members and end inside one.
 */
import { promisify } from "node:util";
import { gunzip, inflateRaw, constants, type InputType, type ZlibOptions } from "node:zlib";
import { DaemonError } from "../../base/errors.ts";
import type { Block } from "../block-table.ts";
import { GZIP_TRAILER_BYTES } from "./gzip-header.ts";

/**
 * zlib can only start at whole bytes, so to start at bit k, empty deflate blocks are put in front
 * whose length is k modulo 8. For even k those are k/2 fixed ones of 10 bits; for odd k one
 * dynamic one of 93 bits comes first. Whole bytes to prepend, and the low k bits of the first real
 * byte (what is there belongs to the block before). The same idea: zran.c's NOPRIME.
 */
const PADDING: readonly { readonly bytes: string; readonly lowBits: number }[] = [
  { bytes: "", lowBits: 0 },
  { bytes: "04c001090000000090ffaf450001", lowBits: 0 },
  { bytes: "02", lowBits: 0 },
  { bytes: "04c001090000000090ffaf45000104", lowBits: 0 },
  { bytes: "0208", lowBits: 0 },
  { bytes: "04c001090000000090ffaf", lowBits: 0b00101 },
  { bytes: "020820", lowBits: 0 },
  { bytes: "04c001090000000090ffaf45", lowBits: 0 },
];

/** Deflate bytes that begin on a byte border and mean the same as `bytes` from bit `startBits`. */
export function alignDeflate(bytes: Uint8Array, startBits: number): Uint8Array {
  const padding = PADDING[startBits];
  if (padding === undefined) throw new DaemonError("data-loss", `gzip block at bit ${startBits}`);
  if (startBits === 0) return bytes;
  const prefix = Buffer.from(padding.bytes, "hex");
  const aligned = Buffer.concat([prefix, bytes]);
  const first = bytes[0] ?? 0;
  aligned[prefix.length] = ((first >> startBits) << startBits) | padding.lowBits;
  return aligned;
}

/**
 * Output room beyond the block's length, so that one byte too many shows and zlib needs no second
 * buffer.
 */
const OUTPUT_SLACK_BYTES = 64;

interface Inflated {
  readonly output: Buffer;
  readonly consumed: number;
}

/** What node:zlib's callback functions give with `info: true`; missing from its types. */
interface WithInfo {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

type Inflate = (input: InputType, options: ZlibOptions) => Promise<Buffer>;

/** Both run in libuv's thread pool. */
const inflateRawAsync: Inflate = promisify(inflateRaw);
const gunzipAsync: Inflate = promisify(gunzip);

export async function decodeGzipBlock(
  block: Block,
  blobBytes: Uint8Array,
  window: Uint8Array | undefined,
): Promise<Uint8Array> {
  if (block.atMemberStart) return decodeMembers(blobBytes, block.tarLength);
  const aligned = alignDeflate(blobBytes, block.startBits);
  const first = await inflate(inflateRawAsync, aligned, block.tarLength, window);
  const rest = blobBytes.length - (first.consumed - (aligned.length - blobBytes.length));
  if (first.output.length === block.tarLength || rest <= GZIP_TRAILER_BYTES) return first.output;
  const members = blobBytes.subarray(blobBytes.length - rest + GZIP_TRAILER_BYTES);
  const second = await decodeMembers(members, block.tarLength - first.output.length);
  return Buffer.concat([first.output, second]);
}

/** Whole members, of which the last may be cut short. */
async function decodeMembers(bytes: Uint8Array, outputMax: number): Promise<Buffer> {
  return (await inflate(gunzipAsync, bytes, outputMax, undefined)).output;
}

async function inflate(
  inflater: Inflate,
  input: Uint8Array,
  outputMax: number,
  window: Uint8Array | undefined,
): Promise<Inflated> {
  const room = outputMax + OUTPUT_SLACK_BYTES;
  const result: unknown = await inflater(input, {
    chunkSize: room,
    maxOutputLength: room,
    // The block may end inside a member.
    finishFlush: constants.Z_SYNC_FLUSH,
    info: true,
    ...(window === undefined || window.length === 0 ? {} : { dictionary: window }),
  });
  const { buffer, engine } = result as WithInfo;
  return { output: buffer, consumed: engine.bytesWritten };
}
