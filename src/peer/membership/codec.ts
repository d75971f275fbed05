/**
 * Packets and views as bytes.
 *
 *     packet  := version:u8 (kind:u8 length:u16 body)*
 *     view    := version:u8 count:u32 (state:u8 incarnation:u32 member)*
 *
 * All numbers are big-endian. A message of an unknown kind is skipped, and so is what stands behind
 * the fields of a known one: a newer version may add both. A packet of a version that is not spoken
 * is refused. docs/formats/membership.md has the bodies.
 */
import { DaemonError } from "../../base/errors.ts";
import { versionsText, WIRE_VERSION, WIRE_VERSIONS } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";
import {
  INCARNATION_MAX,
  MEMBERS_MAX,
  PACKET_MESSAGES_MAX,
  PACKET_MESSAGE_BYTES_MAX,
} from "./limits.ts";
import type { MemberState } from "./member.ts";
import type { Message, ViewRecord } from "./messages.ts";
import { FieldReader, FieldWriter, malformed } from "./wire.ts";

/** Kind and length before each message. */
const MESSAGE_HEADER_BYTES = 3;
const PACKET_HEADER_BYTES = 1;

const KINDS = ["ping", "ack", "nack", "indirect-ping", "alive", "suspect", "dead"] as const;
const STATES: readonly MemberState[] = ["alive", "suspect", "dead", "left"];

/** Bytes of one message in a packet, its header included. */
export function encodeMessage(message: Message): Uint8Array {
  const body = writeBody(new FieldWriter(), message).take();
  return new FieldWriter().u8(KINDS.indexOf(message.kind)).u16(body.length).bytes(body).take();
}

function writeBody(to: FieldWriter, message: Message): FieldWriter {
  switch (message.kind) {
    case "ping":
      return to.u32(message.sequence).id(message.target).id(message.from);
    case "ack":
    case "nack":
      return to.u32(message.sequence);
    case "indirect-ping":
      return to.u32(message.sequence).id(message.target).address(message.address);
    case "alive":
      return to.u32(message.incarnation).member(message.member);
    case "suspect":
    case "dead":
      return to.u32(message.incarnation).id(message.id).id(message.from);
  }
}

function readBody(kind: (typeof KINDS)[number], from: FieldReader): Message {
  switch (kind) {
    case "ping":
      return { kind, sequence: from.u32(), target: from.id(), from: from.id() };
    case "ack":
    case "nack":
      return { kind, sequence: from.u32() };
    case "indirect-ping":
      return { kind, sequence: from.u32(), target: from.id(), address: from.address() };
    case "alive":
      return { kind, incarnation: readIncarnation(from), member: from.member() };
    case "suspect":
    case "dead":
      return { kind, incarnation: readIncarnation(from), id: from.id(), from: from.id() };
  }
}

function readIncarnation(from: FieldReader): number {
  const incarnation = from.u32();
  if (incarnation > INCARNATION_MAX) throw malformed(`incarnation ${incarnation}`);
  return incarnation;
}

/** Joins encoded messages to one packet. Throws `internal` when they do not fit: our defect. */
export function encodePacket(
  messages: readonly Uint8Array[],
  version: number = WIRE_VERSION,
): Uint8Array {
  const length = messages.reduce((sum, one) => sum + one.length, PACKET_HEADER_BYTES);
  if (length > PACKET_MESSAGE_BYTES_MAX || messages.length > PACKET_MESSAGES_MAX) {
    throw new DaemonError("internal", `packet of ${length} bytes, ${messages.length} messages`);
  }
  const packet = new Uint8Array(length);
  packet[0] = version;
  let at = PACKET_HEADER_BYTES;
  for (const message of messages) {
    packet.set(message, at);
    at += message.length;
  }
  return packet;
}

/** Bytes that are left in a packet beside `messages`. */
export function roomBeside(messages: readonly Uint8Array[]): number {
  return messages.reduce(
    (room, one) => room - one.length,
    PACKET_MESSAGE_BYTES_MAX - PACKET_HEADER_BYTES,
  );
}

/**
 * Throws `data-loss`, naming what is wrong, or `failed-precondition` for a version that is not
 * spoken; of a packet that is refused nothing is used.
 */
export function decodePacket(
  packet: Uint8Array,
  versions: WireVersions = WIRE_VERSIONS,
): readonly Message[] {
  if (packet.length > PACKET_MESSAGE_BYTES_MAX) throw malformed(`${packet.length} bytes`);
  const reader = new FieldReader(packet);
  checkVersion(reader, versions);
  const messages: Message[] = [];
  while (reader.left > 0) {
    if (messages.length >= PACKET_MESSAGES_MAX) throw malformed("too many messages");
    if (reader.left < MESSAGE_HEADER_BYTES) throw malformed("a message header that is cut");
    const kind = KINDS[reader.u8()];
    const body = new FieldReader(reader.bytes(reader.u16()));
    if (kind === undefined) continue;
    messages.push(readBody(kind, body));
  }
  return messages;
}

function checkVersion(reader: FieldReader, versions: WireVersions): void {
  const version = reader.u8();
  if (version >= versions.lowest && version <= versions.highest) return;
  const what = `membership version ${version}; this node speaks ${versionsText(versions)}`;
  throw new DaemonError("failed-precondition", what);
}

/** The version that a view is written in, as the first byte says. Throws `data-loss` for none. */
export function viewVersion(bytes: Uint8Array): number {
  return new FieldReader(bytes).u8();
}

/** A whole view, for push/pull. */
export function encodeView(
  records: readonly ViewRecord[],
  version: number = WIRE_VERSION,
): Uint8Array {
  const writer = new FieldWriter().u8(version).u32(records.length);
  for (const { state, incarnation, member } of records) {
    writer.u8(STATES.indexOf(state)).u32(incarnation).member(member);
  }
  return writer.take();
}

/** Throws as `decodePacket`. */
export function decodeView(
  bytes: Uint8Array,
  versions: WireVersions = WIRE_VERSIONS,
): readonly ViewRecord[] {
  const reader = new FieldReader(bytes);
  checkVersion(reader, versions);
  const count = reader.u32();
  if (count > MEMBERS_MAX) throw malformed(`a view of ${count} members`);
  const records: ViewRecord[] = [];
  while (records.length < count) {
    const state = STATES[reader.u8()];
    if (state === undefined) throw malformed("an unknown state");
    records.push({ state, incarnation: readIncarnation(reader), member: reader.member() });
  }
  if (reader.left > 0) throw malformed(`${reader.left} bytes after a view`);
  return records;
}
