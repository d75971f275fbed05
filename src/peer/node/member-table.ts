/** What this node has noticed of each member, beside its state. */
import type { Member } from "../membership/member.ts";

/** How a way to a member was the last time it was tried. */
export type Reach = "unknown" | "ok" | "silent";

export interface MemberNotes {
  readonly boot: string;
  /** Since when it is a member without a break and without a restart, local clock, ms. */
  presentMs: number;
  /** When the last packet of it came. */
  heardMs: number | undefined;
  roundTripMs: number | undefined;
  clockAheadMs: number | undefined;
  udp: Reach;
  tcp: Reach;
  /** Streams that failed since the last that did not. */
  tcpFailures: number;
  /** Stream probes that were answered since the last packet was. */
  udpFailures: number;
}

export class MemberTable {
  /** By id; present members only, so at most MEMBERS_MAX. */
  readonly #notes = new Map<string, MemberNotes>();
  /** Ids of present members by boot. */
  readonly #ids = new Map<string, string>();

  get(id: string): MemberNotes | undefined {
    return this.#notes.get(id);
  }

  idOf(boot: string): string | undefined {
    return this.#ids.get(boot);
  }

  /** A new member, or a known one that started again. */
  add({ id, boot }: Member, nowMs: number): void {
    this.remove(id);
    this.#ids.set(boot, id);
    this.#notes.set(id, {
      boot,
      presentMs: nowMs,
      heardMs: undefined,
      roundTripMs: undefined,
      clockAheadMs: undefined,
      udp: "unknown",
      tcp: "unknown",
      tcpFailures: 0,
      udpFailures: 0,
    });
  }

  remove(id: string): void {
    const notes = this.#notes.get(id);
    if (notes !== undefined) this.#ids.delete(notes.boot);
    this.#notes.delete(id);
  }

  heard(boot: string, nowMs: number): void {
    const notes = this.#notes.get(this.#ids.get(boot) ?? "");
    if (notes === undefined) return;
    notes.heardMs = nowMs;
    notes.udp = "ok";
    notes.udpFailures = 0;
  }
}
