/**
 * Tree messages as bytes.
 *
 *     message := version:u8 oldest:u8 kind:u8 body
 *
 * `version` is the one that the body is written in, `oldest` the oldest whose readers understand
 * it: a newer version only appends to a body, and an older reader ignores what it does not know.
 * So two adjacent versions work together. All numbers are big-endian; docs/formats/tree.md has the
 * bodies.
 */
import { DaemonError } from "../../base/errors.ts";
import type {
  ComplaintReason,
  PongMessage,
  PositionMessage,
  Rank,
  RefusalReason,
  Report,
  TreeMessage,
} from "./messages.ts";
import { WIRE_VERSION, WIRE_VERSION_LOWEST } from "../wire-versions.ts";
import { malformed, MESSAGE_BYTES_MAX, TreeReader, TreeWriter } from "./wire.ts";

/** Raised when a body gets another field, or there is another kind. */
export const TREE_WIRE_VERSION = WIRE_VERSION;
/** The oldest version whose messages are still read, and that still reads ours. */
export const TREE_WIRE_OLDEST = WIRE_VERSION_LOWEST;

export interface WireVersions {
  readonly version: number;
  readonly oldest: number;
}

export const TREE_WIRE: WireVersions = { version: TREE_WIRE_VERSION, oldest: TREE_WIRE_OLDEST };

const KINDS = [
  "report",
  "position",
  "ack",
  "wait",
  "refused",
  "leave",
  "gone",
  "complaint",
  "ping",
  "pong",
  "beat",
  "beat-ack",
  "rival",
  "token",
  "token-answer",
] as const satisfies readonly TreeMessage["kind"][];
const RANKS: readonly Rank[] = ["any", "manager", "deputy"];
const REASONS: readonly RefusalReason[] = ["members", "zones", "trees"];
const COMPLAINTS: readonly ComplaintReason[] = ["silent", "wrong-bytes"];

const writer = new TreeWriter();

/** Throws `internal` when the message does not fit a packet: a defect of ours. */
export function encodeTreeMessage(message: TreeMessage, wire = TREE_WIRE): Uint8Array {
  const to = writer
    .reset()
    .u8(wire.version)
    .u8(wire.oldest)
    .u8(KINDS.indexOf(message.kind))
    .image(message.image);
  writeBody(to, message);
  if (to.length > MESSAGE_BYTES_MAX) {
    throw new DaemonError("internal", `tree message of ${to.length} bytes`);
  }
  return to.take();
}

/**
 * Throws `data-loss` naming what is wrong; `failed-precondition` when the sender's version and ours
 * have nothing in common, `unimplemented` for a kind that a newer version has added.
 */
export function decodeTreeMessage(bytes: Uint8Array, wire = TREE_WIRE): TreeMessage {
  if (bytes.length > MESSAGE_BYTES_MAX) throw malformed(`${bytes.length} bytes`);
  const from = new TreeReader(bytes);
  const version = from.u8();
  const oldest = from.u8();
  if (oldest > version) throw malformed(`version ${version} that is older than ${oldest}`);
  if (oldest > wire.version || version < wire.oldest) {
    const what = `tree version ${oldest} to ${version}; this node speaks ${wire.oldest} to`;
    throw new DaemonError("failed-precondition", `${what} ${wire.version}`);
  }
  const number = from.u8();
  const kind = KINDS[number];
  if (kind === undefined) {
    if (version <= wire.version) throw malformed("an unknown kind");
    throw new DaemonError("unimplemented", `kind ${number} of tree version ${version}`);
  }
  const message = readBody(kind, from);
  if (from.left > 0 && version <= wire.version) {
    throw malformed(`${from.left} bytes after a ${kind}`);
  }
  return message;
}

function writeBody(to: TreeWriter, message: TreeMessage): void {
  switch (message.kind) {
    case "report":
      writeReport(to, message);
      break;
    case "position":
      writePosition(to, message);
      break;
    case "ack":
      to.epoch(message.epoch).u32(message.size).u16(message.children);
      break;
    case "wait":
      to.capped(message.forMs);
      break;
    case "refused":
      to.u8(REASONS.indexOf(message.reason));
      break;
    case "leave":
      to.contact(message.member);
      break;
    case "gone":
      break;
    case "complaint":
      to.text(message.accuser).text(message.about).u8(COMPLAINTS.indexOf(message.reason));
      break;
    case "ping":
      to.u32(message.nonce);
      break;
    case "pong":
      writePong(to, message);
      break;
    case "beat":
      to.epoch(message.epoch).u32(message.size).contact(message.manager);
      to.u8(message.handover ? 1 : 0);
      break;
    case "beat-ack":
      to.u32(message.known);
      break;
    case "rival":
      to.epoch(message.epoch).u32(message.size).contact(message.manager);
      break;
    case "token":
      to.u32(message.nonce).capped(message.bytes);
      break;
    case "token-answer":
      to.u32(message.nonce).u8(message.granted ? 1 : 0);
      to.capped(message.retryAfterMs);
  }
}

function readBody(kind: TreeMessage["kind"], from: TreeReader): TreeMessage {
  const image = from.image();
  switch (kind) {
    case "report":
      return readReport(image, from);
    case "position":
      return readPosition(image, from);
    case "ack":
      return { kind, image, epoch: from.epoch(), size: from.u32(), children: from.u16() };
    case "wait":
      return { kind, image, forMs: from.u32() };
    case "refused":
      return { kind, image, reason: oneOf(REASONS, from) };
    case "leave":
      return { kind, image, member: from.contact() };
    case "gone":
      return { kind, image };
    case "complaint":
      return {
        kind,
        image,
        accuser: from.id(),
        about: from.id(),
        reason: oneOf(COMPLAINTS, from),
      };
    case "ping":
      return { kind, image, nonce: from.u32() };
    case "pong":
      return readPong(image, from);
    case "beat": {
      const seen = { epoch: from.epoch(), size: from.u32(), manager: from.contact() };
      return { kind, image, ...seen, handover: from.flag() };
    }
    case "beat-ack":
      return { kind, image, known: from.u32() };
    case "rival":
      return { kind, image, epoch: from.epoch(), size: from.u32(), manager: from.contact() };
    case "token":
      return { kind, image, nonce: from.u32(), bytes: from.u32() };
    case "token-answer":
      return {
        kind,
        image,
        nonce: from.u32(),
        granted: from.flag(),
        retryAfterMs: from.u32(),
      };
  }
}

function oneOf<T>(values: readonly T[], from: TreeReader): T {
  const index = from.u8();
  const value = values[index];
  if (value === undefined) throw malformed(`${index} where at most ${values.length - 1} may be`);
  return value;
}

function writeReport(to: TreeWriter, report: Report): void {
  to.ref(report.member).u8(report.hops).u8(RANKS.indexOf(report.rank));
  to.capped(report.heldBlocks).u8(Math.min(report.interior, 255)).capped(report.bytesPerSecond);
  to.optional(report.seat, ({ slot, depth, size, epoch, fingerprint }) =>
    to.u32(slot).u8(depth).u32(size).epoch(epoch).u32(fingerprint),
  );
}

function readReport(image: string, from: TreeReader): Report {
  const report = {
    kind: "report" as const,
    image,
    member: from.ref(),
    hops: from.u8(),
    rank: oneOf(RANKS, from),
    heldBlocks: from.u32(),
    interior: from.u8(),
    bytesPerSecond: from.u32(),
  };
  const seat = from.optional(() => ({
    slot: from.u32(),
    depth: from.u8(),
    size: from.u32(),
    epoch: from.epoch(),
    fingerprint: from.u32(),
  }));
  return seat === undefined ? report : { ...report, seat };
}

/**
 * With ids of any length parent, root and manager fit; grandparent and deputy, which are for the
 * worst case only, are left out when they do not.
 */
function writePosition(to: TreeWriter, position: PositionMessage): void {
  const { epoch, parent, grandparent, root, manager, deputy } = position;
  to.u48(epoch.counter).contact(manager).u32(position.slot).u8(position.depth);
  to.u32(position.size).u16(position.children).u32(position.fingerprint).ref(root);
  // Both may be the root, which is not written twice.
  writeNear(to, parent, root);
  writeNear(to, grandparent, root, 2);
  if (deputy === undefined || to.length + lengthOf(deputy) + 2 > MESSAGE_BYTES_MAX) to.u8(0);
  else to.u8(1).contact(deputy);
}

const NEAR_ABSENT = 0;
const NEAR_GIVEN = 1;
const NEAR_ROOT = 2;

function writeNear(
  to: TreeWriter,
  ref: PositionMessage["parent"],
  root: PositionMessage["root"],
  reserve = 0,
): void {
  if (ref === root) to.u8(NEAR_ROOT);
  else if (ref === undefined || (reserve > 0 && to.length + lengthOf(ref) > MESSAGE_BYTES_MAX - 8))
    to.u8(NEAR_ABSENT);
  else to.u8(NEAR_GIVEN).ref(ref);
}

/** Upper bound of the bytes of a contact or reference. */
function lengthOf(contact: { readonly id: string; readonly zone?: string }): number {
  return 1 + Buffer.byteLength(contact.id) + 16 + 19 + 4 + Buffer.byteLength(contact.zone ?? "");
}

function readNear(from: TreeReader, root: PositionMessage["root"]): PositionMessage["parent"] {
  const how = from.u8();
  if (how > NEAR_ROOT) throw malformed(`${how} where at most ${NEAR_ROOT} may be`);
  return how === NEAR_ABSENT ? undefined : how === NEAR_ROOT ? root : from.ref();
}

function readPosition(image: string, from: TreeReader): PositionMessage {
  const counter = from.u48();
  const manager = from.contact();
  const position = {
    kind: "position" as const,
    image,
    epoch: { counter, manager: manager.id },
    slot: from.u32(),
    depth: from.u8(),
    size: from.u32(),
    children: from.u16(),
    fingerprint: from.u32(),
    root: from.ref(),
    manager,
  };
  const parent = readNear(from, position.root);
  const grandparent = readNear(from, position.root);
  const deputy = from.optional(() => from.contact());
  if (parent === undefined && grandparent !== undefined) throw malformed("half a position");
  return {
    ...position,
    ...(parent === undefined ? {} : { parent }),
    ...(grandparent === undefined ? {} : { grandparent }),
    ...(deputy === undefined ? {} : { deputy }),
  };
}

function writePong(to: TreeWriter, pong: PongMessage): void {
  to.u32(pong.nonce)
    .u8(pong.isManager ? 1 : 0)
    .u8(pong.isMember ? 1 : 0);
  to.optional(pong.manager, (manager) => to.contact(manager));
  to.optional(pong.epoch, (epoch) => to.epoch(epoch));
}

function readPong(image: string, from: TreeReader): PongMessage {
  const pong = {
    kind: "pong" as const,
    image,
    nonce: from.u32(),
    isManager: from.flag(),
    isMember: from.flag(),
  };
  const manager = from.optional(() => from.contact());
  const epoch = from.optional(() => from.epoch());
  return {
    ...pong,
    ...(manager === undefined ? {} : { manager }),
    ...(epoch === undefined ? {} : { epoch }),
  };
}
