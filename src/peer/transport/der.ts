/**
 * The part of DER (ITU-T X.690) that X.509 certificates need: writing, and strict reading of bytes
 * that a stranger may have made.
 */
import { DaemonError } from "../../base/errors.ts";

/** Identifier octets. Source: X.690 8.1.2, X.680 8.6. */
export const DER_TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** `[number]`, with other elements in it. */
export function contextTag(number: number): number {
  return 0xa0 | number;
}

/** `[number] IMPLICIT` of a primitive type. */
export function implicitTag(number: number): number {
  return 0x80 | number;
}

export function element(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  return Buffer.concat([Buffer.of(tag), lengthBytes(content.length), content]);
}

export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return element(DER_TAG.sequence, ...parts);
}

/** A non-negative integer of any size. */
export function integer(magnitude: Uint8Array): Buffer {
  const first = magnitude.findIndex((byte) => byte !== 0);
  const minimal = first < 0 ? Buffer.of(0) : magnitude.subarray(first);
  const sign = ((minimal[0] ?? 0) & 0x80) === 0 ? Buffer.alloc(0) : Buffer.of(0);
  return element(DER_TAG.integer, sign, minimal);
}

/** `2.5.29.17`. Source: X.690 8.19. */
export function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const bytes = [40 * first + second, ...rest].flatMap((arc) => {
    const groups = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80);
    return groups;
  });
  return element(DER_TAG.oid, Uint8Array.from(bytes));
}

export function octetString(bytes: Uint8Array): Buffer {
  return element(DER_TAG.octetString, bytes);
}

/** Whole bytes unless `unusedBits` of the last one are no part of it. */
export function bitString(bytes: Uint8Array, unusedBits = 0): Buffer {
  return element(DER_TAG.bitString, Buffer.of(unusedBits), bytes);
}

export function derTrue(): Buffer {
  return element(DER_TAG.boolean, Buffer.of(0xff));
}

function lengthBytes(length: number): Buffer {
  if (length < 0x80) return Buffer.of(length);
  if (length < 0x100) return Buffer.of(0x81, length);
  if (length < 0x1_0000) return Buffer.of(0x82, length >>> 8, length & 0xff);
  throw new DaemonError("internal", `a certificate field of ${length} bytes`);
}

export interface DerElement {
  readonly tag: number;
  /** A view. */
  readonly content: Uint8Array;
}

/** Bytes that one length may say: certificates that we read are far smaller. */
const DER_LENGTH_BYTES_MAX = 3;

/** Elements one after another; every misfit is `data-loss`. */
export class DerReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  /** The next element's tag; undefined at the end. */
  peek(): number | undefined {
    return this.#bytes[this.#at];
  }

  /** The next element, which must have the tag if one is given. */
  next(tag?: number): DerElement {
    const found = this.#byte();
    if ((found & 0x1f) === 0x1f) throw malformed("a tag of several bytes");
    if (tag !== undefined && found !== tag) throw malformed(`tag ${found} instead of ${tag}`);
    const length = this.#length();
    const start = this.#at;
    if (length > this.#bytes.length - start) throw malformed("an element past the end");
    this.#at = start + length;
    return { tag: found, content: this.#bytes.subarray(start, this.#at) };
  }

  /** The elements within the next one. */
  enter(tag: number): DerReader {
    return new DerReader(this.next(tag).content);
  }

  #length(): number {
    const first = this.#byte();
    if (first < 0x80) return first;
    const count = first & 0x7f;
    if (count === 0 || count > DER_LENGTH_BYTES_MAX) throw malformed("a length of odd form");
    let length = 0;
    for (let index = 0; index < count; index += 1) length = length * 256 + this.#byte();
    if (length < 0x80 || length < 2 ** (8 * (count - 1))) throw malformed("a length too long");
    return length;
  }

  #byte(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw malformed("an end too early");
    this.#at += 1;
    return byte;
  }
}

export function malformed(what: string): DaemonError {
  return new DaemonError("data-loss", `malformed certificate: ${what}`);
}
