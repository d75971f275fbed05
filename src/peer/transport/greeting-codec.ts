/**
 * Greetings as bytes (big-endian; docs/formats/membership.md):
 *
 *     hello   := 1:u8 lowest:u8 highest:u8 nonce:8 wallMs:u48 zeros, up to HELLO_BYTES
 *     welcome := 2:u8 version:u8           nonce:8 wallMs:u48 incarnation:u32 member
 *
 * A hello is as long as the longest welcome. It can be repeated by anybody who saw it, so an answer
 * must never be longer than what brought it about. What a later version adds behind the fields of
 * either is skipped: both sides have to read them to learn that there is no common version.
 */
import { INCARNATION_MAX } from "../membership/limits.ts";
import type { MemberInfo } from "../membership/member.ts";
import { FieldReader, FieldWriter, malformed } from "../membership/wire.ts";

export const NONCE_BYTES = 8;
/** The longest member (418 bytes) and what stands before it in a welcome. */
export const HELLO_BYTES = 440;

const HELLO = 1;
const WELCOME = 2;

export interface Hello {
  readonly kind: "hello";
  /** The wire versions that the sender speaks, both included. */
  readonly versions: { readonly lowest: number; readonly highest: number };
  /** 16 hex digits; the welcome repeats them. */
  readonly nonce: string;
  /** The sender's wall clock, ms since 1970. */
  readonly wallMs: number;
}

export interface Welcome {
  readonly kind: "welcome";
  /** The highest wire version that both speak; 0: there is none. */
  readonly version: number;
  readonly nonce: string;
  readonly wallMs: number;
  readonly incarnation: number;
  /** Who answers: enough to be its member, and to fetch from it. */
  readonly member: MemberInfo;
}

export type GreetingMessage = Hello | Welcome;

export function encodeGreeting(message: GreetingMessage): Uint8Array {
  const writer = new FieldWriter();
  const nonce = Buffer.from(message.nonce, "hex");
  if (message.kind === "hello") {
    const { lowest, highest } = message.versions;
    writer.u8(HELLO).u8(lowest).u8(highest).bytes(nonce);
    writeWall(writer, message.wallMs);
    const written = writer.take();
    const padded = new Uint8Array(HELLO_BYTES);
    padded.set(written);
    return padded;
  }
  writer.u8(WELCOME).u8(message.version).bytes(nonce);
  writeWall(writer, message.wallMs);
  return writer.u32(message.incarnation).member(message.member).take();
}

/** Throws `data-loss`. */
export function decodeGreeting(bytes: Uint8Array): GreetingMessage {
  if (bytes.length > HELLO_BYTES) throw malformed(`a greeting of ${bytes.length} bytes`);
  const reader = new FieldReader(bytes);
  const kind = reader.u8();
  if (kind === HELLO) {
    if (bytes.length !== HELLO_BYTES) throw malformed("a hello that is too short");
    const versions = { lowest: reader.u8(), highest: reader.u8() };
    return { kind: "hello", versions, nonce: readNonce(reader), wallMs: readWall(reader) };
  }
  if (kind !== WELCOME) throw malformed(`greeting ${kind}`);
  const version = reader.u8();
  const nonce = readNonce(reader);
  const wallMs = readWall(reader);
  const incarnation = reader.u32();
  if (incarnation > INCARNATION_MAX) throw malformed(`incarnation ${incarnation}`);
  const member = reader.member();
  return { kind: "welcome", version, nonce, wallMs, incarnation, member };
}

function writeWall(writer: FieldWriter, wallMs: number): void {
  writer.u16(Math.floor(wallMs / 2 ** 32)).u32(wallMs % 2 ** 32);
}

function readWall(reader: FieldReader): number {
  return reader.u16() * 2 ** 32 + reader.u32();
}

function readNonce(reader: FieldReader): string {
  return Buffer.from(reader.bytes(NONCE_BYTES)).toString("hex");
}
