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
  /** Times that others have said the same since it was sent. */
  heard: number;
  /** Replaced by news; it stays in its tier until that is looked through. */
  isGone: boolean;
}

/** Entries that one packet's search looks at: a packet holds far fewer. */
const EXAMINED_MAX = 4 * PACKET_MESSAGES_MAX;
/** Replaced entries that a tier keeps beside twice the live ones, before it is swept. */
const GONE_ENTRIES_MAX = 64;
/** No broadcast is shorter: header, incarnation, two ids of one byte. */
const LEAST_MESSAGE_BYTES = 11;

export class BroadcastQueue {
  /** By subject, so at most one for each member: bounded by MEMBERS_MAX. */
  readonly #entries = new Map<string, Entry>();
  /** By how often they were sent, each tier oldest first. */
  readonly #tiers: Entry[][] = [];

  get size(): number {
    return this.#entries.size;
  }

  add(broadcast: Broadcast): void {
    const subject = subjectOf(broadcast);
    const older = this.#entries.get(subject);
    if (older !== undefined) older.isGone = true;
    const entry = { subject, bytes: encodeMessage(broadcast), sent: 0, heard: 0, isGone: false };
    this.#entries.set(subject, entry);
    this.#push(entry);
  }

  /** Whether a broadcast about this member has still to be sent. */
  has(subject: string): boolean {
    return this.#entries.has(subject);
  }

  /** Others know it already: it need not be sent so often. Source: Demers 1987, 1.4 (feedback). */
  heard(subject: string, times: number): void {
    const entry = this.#entries.get(subject);
    if (entry !== undefined) entry.heard += times;
  }

  /** Encoded messages for one packet with `roomBytes` left; each counts as sent `limit` at most. */
  take(roomBytes: number, limit: number): readonly Uint8Array[] {
    const taken: Entry[] = [];
    let room = roomBytes;
    let examined = 0;
    for (const tier of this.#tiers) {
      const passed: Entry[] = [];
      while (examined < EXAMINED_MAX && taken.length < PACKET_MESSAGES_MAX / 2) {
        const entry = tier.pop();
        if (entry === undefined) break;
        if (entry.isGone) continue;
        examined += 1;
        if (entry.bytes.length > room) passed.push(entry);
        else {
          room -= entry.bytes.length;
          taken.push(entry);
        }
        if (room < LEAST_MESSAGE_BYTES) break;
      }
      tier.push(...passed.reverse());
    }
    for (const entry of taken.toReversed()) this.#count(entry, limit);
    return taken.map((entry) => entry.bytes);
  }

  #tier(sent: number): Entry[] {
    for (let index = this.#tiers.length; index <= sent; index += 1) this.#tiers.push([]);
    return this.#tiers[sent] ?? [];
  }

  #count(entry: Entry, limit: number): void {
    entry.sent += 1 + entry.heard;
    entry.heard = 0;
    if (entry.sent >= limit) this.#entries.delete(entry.subject);
    else this.#push(entry);
  }

  #push(entry: Entry): void {
    const tier = this.#tier(entry.sent);
    tier.push(entry);
    if (tier.length <= 2 * this.#entries.size + GONE_ENTRIES_MAX) return;
    const kept = tier.filter(({ isGone }) => !isGone);
    tier.splice(0, tier.length, ...kept);
  }
}
