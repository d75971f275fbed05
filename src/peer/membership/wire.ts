/**
 * Reading and writing of packet fields, big-endian. Every length is checked before it is used;
 * a read past the end throws `data-loss`.
 */
import { DaemonError } from "../../base/errors.ts";
import { MEMBER_ID_BYTES_MAX, MEMBERS_MAX, META_BYTES_MAX } from "./limits.ts";
import type { Address, MemberInfo } from "./member.ts";

const BOOT_BYTES = 16;
const IPV4_BYTES = 4;
const IPV6_BYTES = 16;
const PORT_BYTES = 2;
/** Members whose bytes are not read again; twice as many as a view may have. */
const KNOWN_MEMBERS_MAX = 2 * MEMBERS_MAX;
/** By their bytes as latin1 text. */
const knownMembers = new Map<string, MemberInfo>();
const FATAL_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function malformed(what: string): DaemonError {
  return new DaemonError("data-loss", `malformed membership packet: ${what}`);
}

/** Room that a writer begins with; doubled when it is used up. */
const WRITER_BYTES = 128;

export class FieldWriter {
  #bytes = Buffer.allocUnsafe(WRITER_BYTES);
  #length = 0;

  u8(value: number): this {
    this.#reserve(1);
    this.#length = this.#bytes.writeUInt8(value & 0xff, this.#length);
    return this;
  }

  u16(value: number): this {
    this.#reserve(2);
    this.#length = this.#bytes.writeUInt16BE(value & 0xffff, this.#length);
    return this;
  }

  u32(value: number): this {
    this.#reserve(4);
    this.#length = this.#bytes.writeUInt32BE(value >>> 0, this.#length);
    return this;
  }

  bytes(bytes: Uint8Array): this {
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  hex(text: string): this {
    this.#reserve(text.length / 2);
    this.#length += this.#bytes.write(text, this.#length, "hex");
    return this;
  }

  /** A length in one byte, and UTF-8. */
  id(text: string): this {
    // No character is longer in UTF-8 than three bytes for each of its UTF-16 units.
    this.#reserve(1 + 3 * text.length);
    const bytes = this.#bytes.write(text, this.#length + 1, "utf8");
    this.#bytes[this.#length] = bytes;
    this.#length += 1 + bytes;
    return this;
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
      .hex(member.boot)
      .address(member.address)
      .u8(member.meta.length)
      .bytes(member.meta);
  }

  take(): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#bytes, 0, this.#length);
  }

  #reserve(count: number): void {
    const needed = this.#length + count;
    if (needed <= this.#bytes.length) return;
    const grown = Buffer.allocUnsafe(Math.max(needed, 2 * this.#bytes.length));
    grown.set(this.#bytes);
    this.#bytes = grown;
  }
}

export class FieldReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  /** Where the next `length` bytes begin. */
  #take(length: number): number {
    if (length > this.left) throw malformed(`${length} bytes wanted, ${this.left} left`);
    this.#at += length;
    return this.#at - length;
  }

  u8(): number {
    return this.#bytes[this.#take(1)] ?? 0;
  }

  u16(): number {
    return this.#bytes.readUInt16BE(this.#take(2));
  }

  u32(): number {
    return this.#bytes.readUInt32BE(this.#take(4));
  }

  /** A view of the packet, not a copy. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  id(): string {
    const length = this.u8();
    const at = this.#take(length);
    const plain = plainText(this.#bytes, at, length);
    if (plain !== undefined && length <= MEMBER_ID_BYTES_MAX) return plain;
    try {
      return checkMemberId(FATAL_UTF8.decode(this.#bytes.subarray(at, at + length)));
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

  /** One object for equal bytes: news of one member comes again and again. */
  member(): MemberInfo {
    const from = this.#at;
    const key = this.#bytes.toString("latin1", from, this.#memberEnd());
    const known = knownMembers.get(key);
    if (known !== undefined) {
      this.#at += key.length;
      return known;
    }
    const member = this.#readMember();
    if (knownMembers.size >= KNOWN_MEMBERS_MAX) knownMembers.clear();
    knownMembers.set(key, member);
    return member;
  }

  /** Where the member that begins here ends, if it is well formed. */
  #memberEnd(): number {
    const familyAt = this.#at + 1 + (this.#bytes[this.#at] ?? 0) + BOOT_BYTES;
    const hostBytes = this.#bytes[familyAt] === 4 ? IPV4_BYTES : IPV6_BYTES;
    const metaAt = familyAt + 1 + hostBytes + PORT_BYTES;
    return metaAt + 1 + (this.#bytes[metaAt] ?? 0);
  }

  #readMember(): MemberInfo {
    const id = this.id();
    const bootAt = this.#take(BOOT_BYTES);
    const boot = this.#bytes.toString("hex", bootAt, bootAt + BOOT_BYTES);
    const address = this.address();
    const metaBytes = this.u8();
    if (metaBytes > META_BYTES_MAX) throw malformed(`${metaBytes} bytes of metadata`);
    return { id, boot, address, meta: Uint8Array.from(this.bytes(metaBytes)) };
  }
}

/** Text of visible ASCII alone, as nearly all ids are; undefined: empty, or to be looked at. */
export function plainText(bytes: Buffer, at: number, length: number): string | undefined {
  for (let index = at; index < at + length; index += 1) {
    const byte = bytes[index] ?? 0;
    if (byte <= 0x20 || byte >= 0x7f) return undefined;
  }
  return length === 0 ? undefined : bytes.toString("latin1", at, at + length);
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
const DOT = 0x2e;
const DIGIT_0 = 0x30;

/** Throws `invalid-argument` when `host` is not an IP address (names are resolved before). */
export function addressBytes(host: string): Uint8Array {
  const quad = ipv4Bytes(host);
  if (quad !== undefined) return quad;
  const bytes = ipv6Bytes(host);
  if (bytes !== undefined) return Uint8Array.from(bytes);
  throw new DaemonError("invalid-argument", `not an IP address: ${host}`);
}

/** As IPV4 says, in a tenth of the time: it is done for each packet. */
function ipv4Bytes(host: string): Uint8Array | undefined {
  const bytes = new Uint8Array(IPV4_BYTES);
  let part = 0;
  let digits = 0;
  let value = 0;
  for (let at = 0; at <= host.length; at += 1) {
    const code = at === host.length ? DOT : host.charCodeAt(at);
    if (code === DOT) {
      if (digits === 0 || part === IPV4_BYTES) return undefined;
      bytes[part] = value;
      part += 1;
      [digits, value] = [0, 0];
      continue;
    }
    const digit = code - DIGIT_0;
    if (digit < 0 || digit > 9 || (digits > 0 && value === 0)) return undefined;
    value = value * 10 + digit;
    digits += 1;
    if (value > 255) return undefined;
  }
  return part === IPV4_BYTES ? bytes : undefined;
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
  if (bytes.length === IPV4_BYTES) {
    return `${bytes[0] ?? 0}.${bytes[1] ?? 0}.${bytes[2] ?? 0}.${bytes[3] ?? 0}`;
  }
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
