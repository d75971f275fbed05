/** Compressed forms of a tar, as the builders of this world write them. */
import { spawn } from "node:child_process";
import { deflateRawSync, constants, crc32, gzipSync } from "node:zlib";

/** Runs a filter command over the bytes. */
export async function filter(command: string, input: Buffer): Promise<Buffer> {
  const child = spawn("bash", ["-c", command], { stdio: ["pipe", "pipe", "pipe"] });
  const output: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => output.push(chunk));
  child.stdin.on("error", () => undefined);
  child.stdin.end(input);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  if (code !== 0) throw new Error(`${command}: exit ${code}`);
  return Buffer.concat(output);
}

/** One member a piece. */
export function gzipMembers(tar: Buffer, pieceBytes: number, level = 6): Buffer {
  const members: Buffer[] = [];
  for (let start = 0; start < tar.length; start += pieceBytes) {
    members.push(gzipSync(tar.subarray(start, start + pieceBytes), { level }));
  }
  return Buffer.concat(members);
}

export interface MemberOptions {
  readonly extra?: Buffer;
  readonly name?: string;
  readonly comment?: string;
  readonly headerCrc?: boolean;
  readonly strategy?: number;
  readonly level?: number;
  readonly memLevel?: number;
}

/** A member with every optional header field. */
export function gzipMember(data: Buffer, options: MemberOptions = {}): Buffer {
  const flags =
    (options.headerCrc === true ? 2 : 0) |
    (options.extra === undefined ? 0 : 4) |
    (options.name === undefined ? 0 : 8) |
    (options.comment === undefined ? 0 : 16);
  const head: Buffer[] = [Buffer.of(0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255)];
  if (options.extra !== undefined) {
    const length = Buffer.alloc(2);
    length.writeUInt16LE(options.extra.length);
    head.push(length, options.extra);
  }
  if (options.name !== undefined) head.push(Buffer.from(`${options.name}\0`, "latin1"));
  if (options.comment !== undefined) head.push(Buffer.from(`${options.comment}\0`, "latin1"));
  if (options.headerCrc === true) {
    const crc = Buffer.alloc(2);
    crc.writeUInt16LE(crc32(Buffer.concat(head)) & 0xffff);
    head.push(crc);
  }
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc32(data), 0);
  trailer.writeUInt32LE(data.length % 2 ** 32, 4);
  const body = deflateRawSync(data, {
    level: options.level ?? 6,
    memLevel: options.memLevel ?? 8,
    strategy: options.strategy ?? constants.Z_DEFAULT_STRATEGY,
  });
  return Buffer.concat([...head, body, trailer]);
}

/** Compressible bytes, the same for the same seed, with deflate blocks of every kind of content. */
export function sampleBytes(length: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(length);
  let state = seed >>> 0;
  const next = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 8;
  };
  let position = 0;
  while (position < length) {
    const run = Math.min(1 + (next() % 6000), length - position);
    const kind = next() % 4;
    for (let index = 0; index < run; index += 1) {
      const at = position + index;
      if (kind === 0) bytes[at] = next() & 0xff;
      else if (kind === 1) bytes[at] = 0x61 + (next() % 7);
      else if (kind === 2) bytes[at] = bytes[at - 1 - (next() % 40)] ?? 0x20;
    }
    position += run;
  }
  return bytes;
}

export async function* chunksOf(bytes: Uint8Array, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) {
    yield await Promise.resolve(bytes.subarray(start, start + size));
  }
}
