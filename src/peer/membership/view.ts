/** The members as this node sees them, and fair and random ways through them. */
import type { Random } from "../../base/random.ts";
import { isPresent } from "./member.ts";
import type { Member } from "./member.ts";

/** Tries of a random pick per member wanted, and members below which it is tried that often. */
const PICK_TRIES = 3;

export class View {
  readonly #random: Random;
  readonly #members = new Map<string, Member>();
  /** All ids in the order of probing, which is shuffled after each round (SWIM 4.3). */
  readonly #ring: string[] = [];
  #next = 0;
  #present = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Dead and left ones that are still remembered included. */
  get size(): number {
    return this.#members.size;
  }

  /** Alive and suspect ones, this node included. */
  get presentCount(): number {
    return this.#present;
  }

  get(id: string): Member | undefined {
    return this.#members.get(id);
  }

  all(): Iterable<Member> {
    return this.#members.values();
  }

  set(member: Member): void {
    const before = this.#members.get(member.id);
    this.#members.set(member.id, member);
    this.#present += Number(isPresent(member)) - Number(before !== undefined && isPresent(before));
    if (before !== undefined) return;
    // At a random place, so that the time to its first probe does not depend on when it came.
    const at = this.#below(this.#ring.length + 1);
    const moved = this.#ring[at];
    this.#ring[at] = member.id;
    if (moved !== undefined) this.#ring.push(moved);
  }

  /** The next one to probe, once round before any is probed again; undefined: nobody fits. */
  nextToProbe(fits: (member: Member) => boolean): Member | undefined {
    for (let tried = 0; tried <= this.#ring.length; tried += 1) {
      if (this.#next >= this.#ring.length) {
        this.#shuffle();
        this.#next = 0;
      }
      const member = this.#members.get(this.#ring[this.#next] ?? "");
      this.#next += 1;
      if (member !== undefined && fits(member)) return member;
    }
    return undefined;
  }

  /** Up to `count` different members that fit, each as likely as another. */
  pick(count: number, fits: (member: Member) => boolean): readonly Member[] {
    const picked = new Set<Member>();
    const tries = Math.min(PICK_TRIES * this.#ring.length, 16 * PICK_TRIES * count);
    for (let tried = 0; tried < tries && picked.size < count; tried += 1) {
      const member = this.#members.get(this.#ring[this.#below(this.#ring.length)] ?? "");
      if (member !== undefined && fits(member)) picked.add(member);
    }
    return [...picked];
  }

  /** Drops the members that `isStale` names. */
  forget(isStale: (member: Member) => boolean): void {
    let kept = 0;
    for (const id of this.#ring) {
      const member = this.#members.get(id);
      if (member !== undefined && isStale(member)) {
        this.#members.delete(id);
        this.#present -= Number(isPresent(member));
      } else {
        this.#ring[kept] = id;
        kept += 1;
      }
    }
    this.#ring.length = kept;
    this.#next = Math.min(this.#next, kept);
  }

  #below(count: number): number {
    return Math.floor(this.#random.next() * count);
  }

  /** Fisher and Yates. */
  #shuffle(): void {
    const ring = this.#ring;
    for (let last = ring.length - 1; last > 0; last -= 1) {
      const other = this.#below(last + 1);
      [ring[last], ring[other]] = [ring[other] ?? "", ring[last] ?? ""];
    }
  }
}
