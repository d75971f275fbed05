/** What a node tells of its cluster, for `faasnet peers` and metrics: plain data, to be posted. */
import type { Address, MemberState } from "../membership/member.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { DatagramCounters } from "../transport/datagram-socket.ts";
import type { Finding } from "./findings.ts";
import type { Reach } from "./member-table.ts";
import type { PacketRefusal } from "./packet-port.ts";

export interface MemberReport {
  readonly id: string;
  readonly boot: string;
  readonly address: Address;
  /** 0: it serves nothing, or its metadata cannot be read. */
  readonly exchangePort: number;
  readonly zone: string;
  /** The highest wire version that it speaks. */
  readonly version: number;
  readonly state: MemberState;
  readonly incarnation: number;
  /** For how long it has been in this state, ms. */
  readonly stateMs: number;
  readonly isSelf: boolean;
  readonly isSeed: boolean;
  /** Of the last greeting, ms. */
  readonly roundTripMs: number | undefined;
  /** How far its wall clock is ahead of ours, ms. */
  readonly clockAheadMs: number | undefined;
  readonly udp: Reach;
  readonly tcp: Reach;
}

export interface SeedReport {
  readonly entry: string;
  readonly addresses: readonly Address[];
  readonly error: string | undefined;
}

export interface MembersReport {
  readonly self: PeerRef;
  /** 0: well; higher: this node seems slow or badly connected (Lifeguard). */
  readonly healthScore: number;
  /** Everybody remembered, by id. */
  readonly members: readonly MemberReport[];
  readonly seeds: readonly SeedReport[];
  readonly findings: readonly Finding[];
  readonly packets: DatagramCounters & {
    /** Waited for a welcome that did not come. */
    readonly dropped: number;
    readonly refused: Readonly<Record<PacketRefusal, number>>;
  };
}
