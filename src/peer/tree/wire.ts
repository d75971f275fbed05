/**
 * Fields of tree messages, big-endian. Every length is checked before it is used; a read past the
 * end throws `data-loss`.
 */
import { DaemonError } from "../../base/errors.ts";
import { MEMBER_ID_BYTES_MAX } from "../membership/limits.ts";
import type { Address } from "../membership/index.ts";
import { addressBytes, checkMemberId, hostOf, plainText } from "../membership/wire.ts";
import type { PeerRef } from "../peer-ref.ts";
import { CONTENT_BYTES_MAX } from "../transport/seal.ts";
import { EPOCH_COUNTER_MAX, ZONE_BYTES_MAX } from "./limits.ts";
import type { Contact, Epoch } from "./messages.ts";

/** A message fits one sealed packet, beside the byte that says that it is a tree message. */
export const MESSAGE_BYTES_MAX = CONTENT_BYTES_MAX - 1;
const BOOT_BYTES = 16;
const SHA256_BYTES = 32;
const IMAGE_PREFIX = "sha256:";
const IMAGE_PATTERN = /^sha256:[0-9a-f]{64}$/;
const UNSAFE = /[\p{C}\s]/u;
const FATAL_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** A message that does not fit is seen before it is sent, so the buffer holds one and a half. */
const SCRATCH_BYTES = 2048;

export function malformed(what: string): DaemonError {
  return new DaemonError("data-loss", `malformed tree message: ${what}`);
}

/** Throws `invalid-argument`. */
export function checkImage(image: string): string {
  if (IMAGE_PATTERN.test(image)) return image;
  throw new DaemonError("invalid-argument", `not a sha256 digest: ${image.slice(0, 100)}`);
}

/** Throws `invalid-argument`. */
export function checkZone(zone: string): string {
  if (Buffer.byteLength(zone) > ZONE_BYTES_MAX || UNSAFE.test(zone)) {
    throw new DaemonError("invalid-argument", `not a zone: ${zone.slice(0, 100)}`);
  }
  return zone;
}

export class TreeWriter {
  readonly #bytes = Buffer.allocUnsafe(SCRATCH_BYTES);
  #at = 0;

  get length(): number {
    return this.#at;
  }

  u8(value: number): this {
    this.#at = this.#bytes.writeUInt8(value & 0xff, this.#at);
    return this;
  }

  u16(value: number): this {
    this.#at = this.#bytes.writeUInt16BE(value & 0xffff, this.#at);
    return this;
  }

  u32(value: number): this {
    this.#at = this.#bytes.writeUInt32BE(value >>> 0, this.#at);
    return this;
  }

  /** Up to 2^32 - 1: more is written as that. */
  capped(value: number): this {
    return this.u32(Math.min(Math.max(0, Math.round(value)), 0xffff_ffff));
  }

  u48(value: number): this {
    this.#at = this.#bytes.writeUIntBE(value, this.#at, 6);
    return this;
  }

  hex(text: string): this {
    this.#at += this.#bytes.write(text, this.#at, "hex");
    return this;
  }

  bytes(bytes: Uint8Array): this {
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
    return this;
  }

  image(image: string): this {
    return this.hex(image.slice(IMAGE_PREFIX.length));
  }

  /** A length in one byte, and UTF-8. */
  text(text: string): this {
    const length = this.#bytes.write(text, this.#at + 1, "utf8");
    this.#bytes[this.#at] = length;
    this.#at += 1 + length;
    return this;
  }

  /** A family (4 or 6), the address in network order, the port. */
  address({ host, port }: Address): this {
    const bytes = addressBytes(host);
    return this.u8(bytes.length === 4 ? 4 : 6)
      .bytes(bytes)
      .u16(port);
  }

  contact({ id, boot, address }: Contact): this {
    return this.text(id).hex(boot).address(address);
  }

  ref(ref: PeerRef): this {
    return this.contact(ref).u16(ref.exchangePort).text(ref.zone).u8(ref.version);
  }

  epoch({ counter, manager }: Epoch): this {
    return this.u48(counter).text(manager);
  }

  optional<T>(value: T | undefined, write: (value: T) => unknown): this {
    this.u8(value === undefined ? 0 : 1);
    if (value !== undefined) write(value);
    return this;
  }

  /** A copy of what was written. */
  take(): Uint8Array {
    return Uint8Array.prototype.slice.call(this.#bytes, 0, this.#at);
  }

  reset(): this {
    this.#at = 0;
    return this;
  }
}

export class TreeReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

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

  u48(): number {
    const value = this.#bytes.readUIntBE(this.#take(6), 6);
    if (value >= EPOCH_COUNTER_MAX) throw malformed(`epoch ${value}`);
    return value;
  }

  flag(): boolean {
    const value = this.u8();
    if (value > 1) throw malformed(`${value} where 0 or 1 has to be`);
    return value === 1;
  }

  image(): string {
    const at = this.#take(SHA256_BYTES);
    return IMAGE_PREFIX + this.#bytes.toString("hex", at, at + SHA256_BYTES);
  }

  /** `isPlain`: it is printable, and not empty. */
  #text(bytesMax: number): { readonly text: string; readonly isPlain: boolean } {
    const length = this.u8();
    if (length > bytesMax) throw malformed(`a text of ${length} bytes`);
    const at = this.#take(length);
    const plain = plainText(this.#bytes, at, length);
    if (plain !== undefined) return { text: plain, isPlain: true };
    try {
      const text = FATAL_UTF8.decode(this.#bytes.subarray(at, at + length));
      return { text, isPlain: false };
    } catch {
      throw malformed("a text that is not UTF-8");
    }
  }

  id(): string {
    const { text, isPlain } = this.#text(MEMBER_ID_BYTES_MAX);
    if (isPlain) return text;
    try {
      return checkMemberId(text);
    } catch (error) {
      throw malformed(error instanceof Error ? error.message : "an id");
    }
  }

  zone(): string {
    const { text, isPlain } = this.#text(ZONE_BYTES_MAX);
    if (!isPlain && UNSAFE.test(text)) throw malformed("a zone with spaces or control characters");
    return text;
  }

  boot(): string {
    const at = this.#take(BOOT_BYTES);
    return this.#bytes.toString("hex", at, at + BOOT_BYTES);
  }

  port(): number {
    const port = this.u16();
    if (port === 0) throw malformed("port 0");
    return port;
  }

  address(): Address {
    const family = this.u8();
    if (family !== 4 && family !== 6) throw malformed(`address family ${family}`);
    const length = family === 4 ? 4 : 16;
    const at = this.#take(length);
    return { host: hostOf(this.#bytes.subarray(at, at + length)), port: this.port() };
  }

  contact(): Contact {
    return { id: this.id(), boot: this.boot(), address: this.address() };
  }

  ref(): PeerRef {
    const { id, boot, address } = this.contact();
    return { id, boot, address, exchangePort: this.u16(), zone: this.zone(), version: this.u8() };
  }

  epoch(): Epoch {
    return { counter: this.u48(), manager: this.id() };
  }

  optional<T>(read: () => T): T | undefined {
    return this.flag() ? read() : undefined;
  }
}
