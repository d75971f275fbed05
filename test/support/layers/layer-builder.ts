/**
 * Builds layers for tests: members through tar-stream's pack, and raw blocks for what it cannot
 * express (odd names, binary pax values, old formats, broken headers).
 */
import { pack, type Header } from "tar-stream";

export const BLOCK = 512;

/** Fields of a raw header; strings are byte strings, numbers become octal. */
export interface RawHeaderFields {
  readonly name?: string;
  readonly mode?: number | Buffer;
  readonly uid?: number | Buffer;
  readonly gid?: number | Buffer;
  readonly size?: number | Buffer;
  readonly mtime?: number | Buffer;
  readonly typeflag?: string;
  readonly linkname?: string;
  readonly magic?: "ustar" | "gnu" | "v7";
  readonly devmajor?: number | Buffer;
  readonly devminor?: number | Buffer;
  readonly prefix?: string;
  /** Written over the block before the checksum is taken. */
  readonly patch?: readonly { readonly offset: number; readonly bytes: Buffer }[];
  readonly checksum?: number;
}

const MAGIC = { ustar: "ustar\x0000", gnu: "ustar  \0", v7: "" } as const;

export function rawHeader(fields: RawHeaderFields): Buffer {
  const block = Buffer.alloc(BLOCK);
  const put = (offset: number, value: string): void => {
    block.write(value, offset, "latin1");
  };
  const number = (offset: number, width: number, value: number | Buffer): void => {
    if (typeof value === "number") put(offset, value.toString(8).padStart(width - 1, "0"));
    else value.copy(block, offset);
  };
  put(0, fields.name ?? "file");
  number(100, 8, fields.mode ?? 0o644);
  number(108, 8, fields.uid ?? 0);
  number(116, 8, fields.gid ?? 0);
  number(124, 12, fields.size ?? 0);
  number(136, 12, fields.mtime ?? 0);
  put(156, fields.typeflag ?? "0");
  put(157, fields.linkname ?? "");
  put(257, MAGIC[fields.magic ?? "ustar"]);
  if (fields.magic !== "v7") {
    number(329, 8, fields.devmajor ?? 0);
    number(337, 8, fields.devminor ?? 0);
  }
  put(345, fields.prefix ?? "");
  for (const { offset, bytes } of fields.patch ?? []) bytes.copy(block, offset);
  block.fill(0x20, 148, 156);
  const sum = fields.checksum ?? block.reduce((total, byte) => total + byte, 0);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `);
  return block;
}

export function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)]);
}

/** A raw member with its data; the size is the data's unless the fields say otherwise. */
export function rawMember(fields: RawHeaderFields, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([rawHeader({ size: data.length, ...fields }), padded(data)]);
}

/** One pax record; key and value are byte strings. */
export function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`.length;
  let length = rest + String(rest).length;
  if (String(length).length + rest !== length) length += 1;
  return `${length} ${key}=${value}\n`;
}

export function paxHeader(
  records: readonly (readonly [string, string])[],
  typeflag: "g" | "x" = "x",
): Buffer {
  const text = records.map(([key, value]) => paxRecord(key, value)).join("");
  return rawMember({ name: "PaxHeader", typeflag }, Buffer.from(text, "latin1"));
}

export function gnuLong(typeflag: "K" | "L", value: string): Buffer {
  return rawMember(
    { name: "././@LongLink", typeflag, magic: "gnu" },
    Buffer.from(`${value}\0`, "latin1"),
  );
}

export const END = Buffer.alloc(2 * BLOCK);

/** The number in base-256 form, two's complement. */
export function base256(value: bigint, width: number): Buffer {
  const bytes = Buffer.alloc(width);
  let rest = value;
  for (let index = width - 1; index >= 0; index -= 1) {
    bytes[index] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  bytes[0] = (bytes[0] ?? 0) | 0x80;
  return bytes;
}

export type PackedMember = Partial<Header> & {
  readonly name: string;
  readonly data?: Buffer | string;
};

/** An archive as tar-stream writes it, end marker included. */
export async function packTar(members: readonly PackedMember[]): Promise<Buffer> {
  const archive = pack();
  for (const { data, ...headers } of members) {
    const mtime = headers.mtime ?? new Date(1_000_000_000_000);
    if (data === undefined) archive.entry({ ...headers, mtime });
    else archive.entry({ ...headers, mtime }, data);
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}
