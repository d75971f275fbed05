/**
 * Reading and writing of packet fields, big-endian. Every length is checked before it is used;
 * a read past the end throws `data-loss`.
 */
import { DaemonError } from "../../base/errors.ts";
import { MEMBER_ID_BYTES_MAX, META_BYTES_MAX } from "./limits.ts";
import type { Address, MemberInfo } from "./member.ts";

const BOOT_BYTES = 16;
const IPV4_BYTES = 4;
const IPV6_BYTES = 16;
const FATAL_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function malformed(what: string): DaemonError {
  return new DaemonError("data-loss", `malformed membership packet: ${what}`);
}

/** Room that a writer begins with; doubled when it is used up. */
const WRITER_BYTES = 128;

export class FieldWriter {
  #bytes = new Uint8Array(WRITER_BYTES);
  #length = 0;

  u8(value: number): this {
    this.#reserve(1);
    this.#bytes[this.#length] = value & 0xff;
    this.#length += 1;
    return this;
  }

  u16(value: number): this {
    return this.u8(value >>> 8).u8(value);
  }

  u32(value: number): this {
    return this.u16(value >>> 16).u16(value);
  }

  bytes(bytes: Uint8Array): this {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** A length in one byte, and UTF-8. */
  id(text: string): this {
    const bytes = Buffer.from(text, "utf8");
    return this.u8(bytes.length).bytes(bytes);
  }

  /** A family (4 or 6), the address in network order, the port. */
  address({ host, port }: Address): this {
    const bytes = addressBytes(host);
    return this.u8(bytes.length === IPV4_BYTES ? 4 : 6)
      .bytes(bytes)
      .u16(port);
  }

  member(member: MemberInfo): this {
    return this.id(member.id)
      .bytes(Buffer.from(member.boot, "hex"))
      .address(member.address)
      .u8(member.meta.length)
      .bytes(member.meta);
  }

  take(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #reserve(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
    grown.set(this.#bytes);
    this.#bytes = grown;
  }
}

export class FieldReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.bytes(1)[0] ?? 0;
  }

  u16(): number {
    return this.u8() * 0x100 + this.u8();
  }

  u32(): number {
    return this.u16() * 0x1_0000 + this.u16();
  }

  /** A view of the packet, not a copy. */
  bytes(length: number): Uint8Array {
    if (length > this.left) throw malformed(`${length} bytes wanted, ${this.left} left`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  id(): string {
    const bytes = this.bytes(this.u8());
    try {
      return checkMemberId(FATAL_UTF8.decode(bytes));
    } catch (error) {
      throw malformed(error instanceof DaemonError ? error.message : "an id that is not UTF-8");
    }
  }

  address(): Address {
    const family = this.u8();
    if (family !== 4 && family !== 6) throw malformed(`address family ${family}`);
    const host = hostOf(this.bytes(family === 4 ? IPV4_BYTES : IPV6_BYTES));
    const port = this.u16();
    if (port === 0) throw malformed("port 0");
    return { host, port };
  }

  member(): MemberInfo {
    const id = this.id();
    const boot = Buffer.from(this.bytes(BOOT_BYTES)).toString("hex");
    const address = this.address();
    const metaBytes = this.u8();
    if (metaBytes > META_BYTES_MAX) throw malformed(`${metaBytes} bytes of metadata`);
    return { id, boot, address, meta: Uint8Array.from(this.bytes(metaBytes)) };
  }
}

/** Printable, not empty and not too long: ids stand in logs and terminals. Throws. */
export function checkMemberId(id: string): string {
  const bytes = Buffer.byteLength(id);
  if (bytes === 0 || bytes > MEMBER_ID_BYTES_MAX) {
    throw new DaemonError(
      "invalid-argument",
      `a member id of ${bytes} bytes; 1 to 253 are allowed`,
    );
  }
  if (/[\p{C}\s]/u.test(id)) {
    throw new DaemonError("invalid-argument", "a member id with spaces or control characters");
  }
  return id;
}

const IPV4_PART = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const IPV4 = new RegExp(`^${IPV4_PART}(?:\\.${IPV4_PART}){3}$`);
const IPV6_GROUPS = 8;

/** Throws `invalid-argument` when `host` is not an IP address (names are resolved before). */
export function addressBytes(host: string): Uint8Array {
  const bytes = IPV4.test(host) ? host.split(".").map(Number) : ipv6Bytes(host);
  if (bytes !== undefined) return Uint8Array.from(bytes);
  throw new DaemonError("invalid-argument", `not an IP address: ${host}`);
}

/** Source: RFC 4291 2.2; a zone (`%eth0`) means nothing to another machine. */
function ipv6Bytes(host: string): readonly number[] | undefined {
  const halves = withoutQuad(host).split("::");
  if (halves.length > 2) return undefined;
  const groups = halves.map((half) => (half === "" ? [] : half.split(":")));
  if (!groups.flat().every((group) => /^[\da-f]{1,4}$/i.test(group))) return undefined;
  const [before = [], after] = groups;
  const missing = IPV6_GROUPS - before.length - (after?.length ?? 0);
  // A double colon stands for one group at least; without it all are there.
  if (after === undefined ? missing !== 0 : missing < 1) return undefined;
  const zeros = new Array<string>(missing).fill("0");
  return [...before, ...zeros, ...(after ?? [])].flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 255];
  });
}

/** A dotted quad at the end is two groups. */
function withoutQuad(host: string): string {
  const at = host.lastIndexOf(":") + 1;
  const quad = host.slice(at);
  if (!IPV4.test(quad) || at === 0) return host;
  const [a = 0, b = 0, c = 0, d = 0] = quad.split(".").map(Number);
  return `${host.slice(0, at)}${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
}

/** The inverse of `addressBytes`, in one spelling (RFC 5952), so that text can be compared. */
export function hostOf(bytes: Uint8Array): string {
  if (bytes.length === IPV4_BYTES) return bytes.join(".");
  const groups = Array.from({ length: 8 }, (_, index) =>
    ((bytes[2 * index] ?? 0) * 256 + (bytes[2 * index + 1] ?? 0)).toString(16),
  );
  const { start, length } = longestZeros(groups);
  if (length < 2) return groups.join(":");
  return `${groups.slice(0, start).join(":")}::${groups.slice(start + length).join(":")}`;
}

function longestZeros(groups: readonly string[]): {
  readonly start: number;
  readonly length: number;
} {
  let best = { start: 0, length: 0 };
  for (let start = 0; start < groups.length; start += 1) {
    let length = 0;
    while (groups[start + length] === "0") length += 1;
    if (length > best.length) best = { start, length };
  }
  return best;
}
