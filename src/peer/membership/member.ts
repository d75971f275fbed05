/**
 * Who is in the cluster, in the words of SWIM (Das, Gupta, Motivala, DSN 2002) and of hashicorp's
 * memberlist, whose rules this module follows.
 */

/**
 * `suspect` still counts as a member; `dead` did not refute in time; `left` said so itself.
 * Source: SWIM 4.2 (suspicion); "left" is memberlist's.
 */
export type MemberState = "alive" | "suspect" | "dead" | "left";

/** Where a member's packets and streams go: one port number, both for UDP and TCP. */
export interface Address {
  /** An IPv4 or IPv6 address as text, in the form that node:net writes it. */
  readonly host: string;
  readonly port: number;
}

/** What a member says of itself; spread by alive messages. */
export interface MemberInfo {
  /** Unique in the cluster; chosen by the operator, by default the host's name. */
  readonly id: string;
  /** 32 hex digits, drawn at every start: tells a restart from a repeated packet. */
  readonly boot: string;
  readonly address: Address;
  /** For the layers above (zone, port, version); opaque here, at most META_BYTES_MAX. */
  readonly meta: Uint8Array;
}

/** A member as one node sees it. */
export interface Member extends MemberInfo {
  readonly state: MemberState;
  /** Raised by the member alone, to refute a suspicion (SWIM 4.2). */
  readonly incarnation: number;
  /** When `state` changed, on the local clock in ms. */
  readonly changedMs: number;
}

/** Written out: spread copies of objects of several shapes are slow to make and slow to read. */
export function memberOf(
  { id, boot, address, meta }: MemberInfo,
  { state, incarnation, changedMs }: Pick<Member, "state" | "incarnation" | "changedMs">,
): Member {
  return { id, boot, address, meta, state, incarnation, changedMs };
}

export function isSameAddress(one: Address, other: Address): boolean {
  return one.host === other.host && one.port === other.port;
}

export function isSameBytes(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

/** Alive or suspect: to be counted, gossiped to, and probed. */
export function isPresent(member: { readonly state: MemberState }): boolean {
  return member.state === "alive" || member.state === "suspect";
}
