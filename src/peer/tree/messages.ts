/** What members of trees and their managers say to each other. */
import type { Address } from "../membership/index.ts";
import type { PeerRef } from "../peer-ref.ts";

/**
 * Which shape of a tree something is about: counts changes of shape and of manager. Ordered by the
 * counter, then by the manager's id, so that of two any two members think the same one newer.
 */
export interface Epoch {
  readonly counter: number;
  /** Id of the member that decided it. */
  readonly manager: string;
}

export function compareEpochs(one: Epoch, other: Epoch): number {
  if (one.counter !== other.counter) return one.counter - other.counter;
  return one.manager < other.manager ? -1 : one.manager > other.manager ? 1 : 0;
}

/** Enough of a member to send to it. */
export interface Contact {
  readonly id: string;
  readonly boot: string;
  readonly address: Address;
}

/**
 * What the sender takes the receiver for: nothing (a member asks a seed), the image's manager, or
 * the manager's deputy, which only remembers what it hears.
 */
export type Rank = "any" | "manager" | "deputy";

/** Where a member stands. */
export interface Seat {
  readonly slot: number;
  readonly depth: number;
  /** Members of the tree as far as it knows: tells a new manager how many it has to hear. */
  readonly size: number;
  readonly epoch: Epoch;
  /** Of the last position that was taken: any that differs is sent again. */
  readonly fingerprint: number;
}

/** "I want to be in this image's tree", or, with a seat, "I am in it": once per heartbeat. */
export interface Report {
  readonly kind: "report";
  readonly image: string;
  readonly member: PeerRef;
  /** Times that this was passed on. */
  readonly hops: number;
  readonly rank: Rank;
  readonly heldBlocks: number;
  /** Trees with traffic in which the member feeds others. */
  readonly interior: number;
  /** Bytes per second that it sends to a child while it sends; 0: unknown. */
  readonly bytesPerSecond: number;
  readonly seat?: Seat;
}

/** The manager's word on where a member stands and whom it asks for blocks. */
export interface PositionMessage {
  readonly kind: "position";
  readonly image: string;
  readonly epoch: Epoch;
  readonly slot: number;
  readonly depth: number;
  readonly size: number;
  readonly children: number;
  readonly fingerprint: number;
  readonly root: PeerRef;
  /** Absent: the member itself is the root. */
  readonly parent?: PeerRef;
  readonly grandparent?: PeerRef;
  readonly manager: Contact;
  readonly deputy?: Contact;
}

/** The answer to a report that shows what the manager knows. */
export interface AckMessage {
  readonly kind: "ack";
  readonly image: string;
  readonly epoch: Epoch;
  readonly size: number;
  readonly children: number;
}

/** "I have just become manager and listen first: keep what you have, or ask again." */
export interface WaitMessage {
  readonly kind: "wait";
  readonly image: string;
  readonly forMs: number;
}

export type RefusalReason = "members" | "zones" | "trees";

/** A limit is reached. */
export interface RefusedMessage {
  readonly kind: "refused";
  readonly image: string;
  readonly reason: RefusalReason;
}

export interface LeaveMessage {
  readonly kind: "leave";
  readonly image: string;
  readonly member: Contact;
}

/** The answer to `leave`. */
export interface GoneMessage {
  readonly kind: "gone";
  readonly image: string;
}

export type ComplaintReason = "silent" | "wrong-bytes";

export interface ComplaintMessage {
  readonly kind: "complaint";
  readonly image: string;
  readonly accuser: string;
  readonly about: string;
  readonly reason: ComplaintReason;
}

export interface PingMessage {
  readonly kind: "ping";
  readonly nonce: number;
  readonly image: string;
}

export interface PongMessage {
  readonly kind: "pong";
  readonly nonce: number;
  readonly image: string;
  /** Whether the sender decides this image's tree. */
  readonly isManager: boolean;
  readonly isMember: boolean;
  /** Whom a member of the tree reports to, and the epoch of its position. */
  readonly manager?: Contact;
  readonly epoch?: Epoch;
}

/**
 * A manager's sign of life: to its deputy, and to another manager of the same tree. With `handover`
 * the deputy is to become manager.
 */
export interface BeatMessage {
  readonly kind: "beat";
  readonly image: string;
  readonly epoch: Epoch;
  readonly size: number;
  readonly manager: Contact;
  readonly handover: boolean;
}

/** The deputy's answer: how many of the tree's members it has heard of. */
export interface BeatAckMessage {
  readonly kind: "beat-ack";
  readonly image: string;
  readonly known: number;
}

/** "Somebody else manages this tree." */
export interface RivalMessage {
  readonly kind: "rival";
  readonly image: string;
  readonly epoch: Epoch;
  readonly size: number;
  readonly manager: Contact;
}

export interface TokenMessage {
  readonly kind: "token";
  readonly image: string;
  readonly nonce: number;
  readonly bytes: number;
}

export interface TokenAnswerMessage {
  readonly kind: "token-answer";
  readonly image: string;
  readonly nonce: number;
  readonly granted: boolean;
  readonly retryAfterMs: number;
}

export type TreeMessage =
  | Report
  | PositionMessage
  | AckMessage
  | WaitMessage
  | RefusedMessage
  | LeaveMessage
  | GoneMessage
  | ComplaintMessage
  | PingMessage
  | PongMessage
  | BeatMessage
  | BeatAckMessage
  | RivalMessage
  | TokenMessage
  | TokenAnswerMessage;
