/** The messages of the protocol. Source: SWIM 3.1 and 4, Lifeguard 4.1 (nack). */
import type { Address, MemberInfo, MemberState } from "./member.ts";

/** "Are you there?" `target`: an address may have a new owner, who must not answer for the old. */
export interface Ping {
  readonly kind: "ping";
  readonly sequence: number;
  readonly target: string;
  readonly from: string;
}

/** The answer to a ping or, through the member that relayed it, to an indirect one. */
export interface Ack {
  readonly kind: "ack";
  readonly sequence: number;
}

/** "I am well, but your target does not answer me either." */
export interface Nack {
  readonly kind: "nack";
  readonly sequence: number;
}

/** "Ping `target` for me." */
export interface IndirectPing {
  readonly kind: "indirect-ping";
  readonly sequence: number;
  readonly target: string;
  readonly address: Address;
}

export interface Alive {
  readonly kind: "alive";
  readonly incarnation: number;
  readonly member: MemberInfo;
}

export interface Suspect {
  readonly kind: "suspect";
  readonly incarnation: number;
  readonly id: string;
  /** Who suspects: independent ones confirm each other. */
  readonly from: string;
}

/** `from` is the member itself: it leaves. */
export interface Dead {
  readonly kind: "dead";
  readonly incarnation: number;
  readonly id: string;
  readonly from: string;
}

/** What is passed on until everybody has it. */
export type Broadcast = Alive | Suspect | Dead;
export type Message = Ping | Ack | Nack | IndirectPing | Broadcast;

/** One line of a view, as push/pull exchanges it. */
export interface ViewRecord {
  readonly state: MemberState;
  readonly incarnation: number;
  readonly member: MemberInfo;
}

export function subjectOf(broadcast: Broadcast): string {
  return broadcast.kind === "alive" ? broadcast.member.id : broadcast.id;
}
