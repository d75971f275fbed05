/** What the node notices of its members: round trips, clocks, blocked ways, twins. */
import type { Clock } from "../../base/clock.ts";
import { DaemonError, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { MembershipEvent } from "../membership/effects.ts";
import { isPresent } from "../membership/member.ts";
import type { Address, Member } from "../membership/member.ts";
import type { Swim } from "../membership/swim.ts";
import type { PeerRef } from "../peer-ref.ts";
import { keyOf } from "../transport/greeting.ts";
import type { Greeted } from "../transport/greeting.ts";
import { Findings } from "./findings.ts";
import type { Finding, FindingKind } from "./findings.ts";
import { peerRefOf } from "./member-meta.ts";
import { MemberTable } from "./member-table.ts";
import type { PacketRefusal } from "./packet-port.ts";
import type { MemberReport } from "./report.ts";

/** Wall clocks that are further apart are reported, ms. */
const CLOCK_SKEW_MS = 5000;
/** Members whose turn to be greeted comes first; more wait for theirs. */
const STRANGERS_MAX = 64;
/** Tries in a row that fail before a way counts as blocked. */
const BLOCKED_AFTER = 3;

export interface MemberWatchOptions {
  readonly log: Logger;
  readonly swim: Swim;
  readonly clock: Clock;
}

export class MemberWatch {
  readonly refused: Record<PacketRefusal, number> = {
    malformed: 0,
    "unknown-key": 0,
    forged: 0,
    replayed: 0,
    own: 0,
    "bad-content": 0,
    "other-version": 0,
  };
  readonly #options: MemberWatchOptions;
  readonly #findings: Findings;
  readonly #table = new MemberTable();
  /** Members in the order of greeting, refilled when all were. */
  readonly #toGreet: string[] = [];
  /** Ids of present members that were never greeted: they come first, as many as are kept. */
  readonly #strangers = new Set<string>();

  constructor(options: MemberWatchOptions) {
    this.#options = options;
    this.#findings = new Findings(options.log);
  }

  get findings(): readonly Finding[] {
    return this.#findings.list(this.#nowMs);
  }

  note(kind: FindingKind, who: string, detail: string): void {
    this.#findings.note(kind, who, detail, this.#nowMs);
  }

  clear(kind: FindingKind, who: string): void {
    this.#findings.clear(kind, who);
  }

  idOf(boot: string): string | undefined {
    return this.#table.idOf(boot);
  }

  /** Since when a member is there without a break or a restart, local clock, ms. */
  presentMs(id: string): number | undefined {
    return this.#table.get(id)?.presentMs;
  }

  presentAddresses(): { readonly has: (address: Address) => boolean } {
    const keys = new Set<string>();
    for (const member of this.#options.swim.members()) {
      if (isPresent(member)) keys.add(keyOf(member.address));
    }
    return { has: (address) => keys.has(keyOf(address)) };
  }

  /** Whether some members were never greeted. */
  get hasStrangers(): boolean {
    return this.#strangers.size > 0;
  }

  /** All members in turn, those first that never were. */
  nextToGreet(): Member | undefined {
    const { swim } = this.#options;
    const [stranger] = this.#strangers;
    if (stranger !== undefined) {
      this.#strangers.delete(stranger);
      return swim.get(stranger);
    }
    if (this.#toGreet.length === 0) {
      for (const member of swim.members()) {
        if (isPresent(member) && member.id !== swim.self.id) this.#toGreet.push(member.id);
      }
    }
    const member = swim.get(this.#toGreet.pop() ?? "");
    return member !== undefined && isPresent(member) ? member : undefined;
  }

  onEvent(event: MembershipEvent, nowMs: number): void {
    switch (event.kind) {
      case "joined":
        this.#table.add(event.member, nowMs);
        this.#addStranger(event.member.id);
        break;
      case "updated":
        if (event.previous.boot === event.member.boot) break;
        this.#table.add(event.member, nowMs);
        this.#addStranger(event.member.id);
        break;
      case "died":
      case "left":
        this.#table.remove(event.member.id);
        this.#strangers.delete(event.member.id);
        break;
      case "conflict": {
        const { member, other } = event;
        const detail = `it is at ${hostPort(member.address)} and at ${hostPort(other.address)}`;
        this.note("duplicate-name", member.id, detail);
        break;
      }
      case "refused":
        this.note("members-full", event.other.id, "it is not taken up: the cluster is full");
        break;
      case "suspected":
      case "cleared":
        break;
    }
  }

  #addStranger(id: string): void {
    if (this.#strangers.size < STRANGERS_MAX) this.#strangers.add(id);
  }

  heard(boot: string, nowMs: number): void {
    this.#table.heard(boot, nowMs);
  }

  /** Whether a node that answered can be spoken with. */
  greeted({ address, welcome }: Greeted): boolean {
    const who = hostPort(address);
    this.clear("seed-silent", who);
    if (welcome.version > 0) return true;
    this.note("other-version", welcome.member.id, `${who} speaks no version that this node speaks`);
    return false;
  }

  /** Somebody else answers to this node's own name. */
  twin(own: Address, { boot, address, welcome }: Greeted): void {
    if (boot === this.#options.swim.self.boot) return;
    const detail = `it is at ${hostPort(own)} and at ${hostPort(address)}`;
    this.note("duplicate-name", welcome.member.id, detail);
  }

  measured({ boot, roundTripMs, clockAheadMs, welcome }: Greeted): void {
    const { id } = welcome.member;
    this.#table.heard(boot, this.#nowMs);
    this.#strangers.delete(id);
    const notes = this.#table.get(id);
    if (notes !== undefined) Object.assign(notes, { roundTripMs, clockAheadMs });
    this.clear("udp-blocked", id);
    if (Math.abs(clockAheadMs) <= CLOCK_SKEW_MS + roundTripMs / 2) {
      this.clear("clock-skew", id);
      return;
    }
    const seconds = Math.round(Math.abs(clockAheadMs) / 1000);
    const side = clockAheadMs > 0 ? "ahead of" : "behind";
    this.note("clock-skew", id, `its clock is ${seconds} s ${side} this node's`);
  }

  unanswered(address: Address, isSeed: boolean): void {
    const who = hostPort(address);
    if (isSeed) this.note("seed-silent", who, "nobody answers there, or nobody with our key");
  }

  /** A stream to a member was answered, or not. `probedMs`: since when packets to it were not. */
  streamed(id: string, error: unknown, { probedMs }: { readonly probedMs?: number }): void {
    const notes = this.#table.get(id);
    if (notes === undefined) return;
    if (error === undefined) {
      notes.tcp = "ok";
      notes.tcpFailures = 0;
      this.clear("tcp-blocked", id);
      if (probedMs === undefined || (notes.heardMs ?? -Infinity) >= probedMs) return;
      notes.udpFailures += 1;
      if (notes.udpFailures < BLOCKED_AFTER) return;
      notes.udp = "silent";
      this.note("udp-blocked", id, "streams reach it, packets do not");
      return;
    }
    notes.tcpFailures += 1;
    if (notes.tcpFailures < BLOCKED_AFTER || notes.udp !== "ok") return;
    notes.tcp = "silent";
    this.note("tcp-blocked", id, `packets reach it, streams do not: ${errorMessage(error)}`);
  }

  refusedPacket(reason: PacketRefusal, from: Address, detail: string): void {
    this.refused[reason] += 1;
    const who = hostPort(from);
    if (reason === "unknown-key") this.note("wrong-key", who, "it seals with another key");
    if (reason === "other-version") this.note("other-version", who, detail);
  }

  refusedView(from: PeerRef, error: unknown): void {
    if (!(error instanceof DaemonError)) throw error;
    const isVersion = error.code === "failed-precondition";
    this.refusedPacket(isVersion ? "other-version" : "bad-content", from.address, error.message);
  }

  keyUnknownThere(from: Address): void {
    const detail = "it says that it does not have the key that this node seals with";
    this.note("key-unknown-there", hostPort(from), detail);
  }

  report(isSeed: (address: Address) => boolean): readonly MemberReport[] {
    const nowMs = this.#nowMs;
    const { swim } = this.#options;
    const reports = Array.from(swim.members(), (member): MemberReport => {
      const { id, boot, address, state, incarnation } = member;
      const ref = peerRefOf(member);
      const notes = this.#table.get(id);
      return {
        ...{ id, boot, address, state, incarnation },
        exchangePort: ref?.exchangePort ?? 0,
        zone: ref?.zone ?? "",
        version: ref?.version ?? 0,
        stateMs: nowMs - member.changedMs,
        isSelf: id === swim.self.id,
        isSeed: isSeed(address),
        roundTripMs: notes?.roundTripMs,
        clockAheadMs: notes?.clockAheadMs,
        udp: notes?.udp ?? "unknown",
        tcp: notes?.tcp ?? "unknown",
      };
    });
    return reports.sort((one, other) => (one.id < other.id ? -1 : 1));
  }

  get #nowMs(): number {
    return this.#options.clock.nowMs();
  }
}

/** As an operator writes it. */
export function hostPort({ host, port }: Address): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
