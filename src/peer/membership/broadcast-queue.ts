/**
 * Broadcasts that wait to ride on packets. Each is sent a limited number of times; one about a
 * member replaces an older one about it. The least sent go first, then the newest: what nobody has
 * heard yet must not wait behind what most have. Source: SWIM 4.1; memberlist's
 * TransmitLimitedQueue.
 */
import { encodeMessage } from "./codec.ts";
import { PACKET_MESSAGES_MAX } from "./limits.ts";
import type { Broadcast } from "./messages.ts";
import { subjectOf } from "./messages.ts";

interface Entry {
  readonly subject: string;
  readonly bytes: Uint8Array;
  sent: number;
}

/** Entries that one packet's search looks at: a packet holds far fewer. */
const EXAMINED_MAX = 4 * PACKET_MESSAGES_MAX;

export class BroadcastQueue {
  /** By subject, so at most one for each member: bounded by MEMBERS_MAX. */
  readonly #entries = new Map<string, Entry>();
  /** By how often they were sent, each tier oldest first. */
  readonly #tiers: Set<Entry>[] = [];

  get size(): number {
    return this.#entries.size;
  }

  add(broadcast: Broadcast): void {
    const subject = subjectOf(broadcast);
    const older = this.#entries.get(subject);
    if (older !== undefined) this.#remove(older);
    const entry = { subject, bytes: encodeMessage(broadcast), sent: 0 };
    this.#entries.set(subject, entry);
    this.#tier(0).add(entry);
  }

  /** Whether a broadcast about this member has still to be sent. */
  has(subject: string): boolean {
    return this.#entries.has(subject);
  }

  /** Encoded messages for one packet with `roomBytes` left; each counts as sent `limit` at most. */
  take(roomBytes: number, limit: number): readonly Uint8Array[] {
    const taken: Entry[] = [];
    let room = roomBytes;
    let examined = 0;
    for (const tier of this.#tiers) {
      for (const entry of [...tier].reverse()) {
        examined += 1;
        if (examined > EXAMINED_MAX || taken.length >= PACKET_MESSAGES_MAX / 2) break;
        if (entry.bytes.length > room) continue;
        room -= entry.bytes.length;
        taken.push(entry);
      }
    }
    for (const entry of taken) this.#count(entry, limit);
    return taken.map((entry) => entry.bytes);
  }

  #tier(sent: number): Set<Entry> {
    for (let index = this.#tiers.length; index <= sent; index += 1) this.#tiers.push(new Set());
    return this.#tiers[sent] ?? new Set();
  }

  #count(entry: Entry, limit: number): void {
    this.#tier(entry.sent).delete(entry);
    entry.sent += 1;
    if (entry.sent >= limit) this.#entries.delete(entry.subject);
    else this.#tier(entry.sent).add(entry);
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.subject);
    this.#tier(entry.sent).delete(entry);
  }
}
