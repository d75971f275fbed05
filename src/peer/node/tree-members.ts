/** The members as the trees are given them, and when: a list of all is not made for each change. */
import { isPresent } from "../membership/member.ts";
import type { Member } from "../membership/member.ts";
import type { Swim } from "../membership/swim.ts";
import type { TreeMember } from "../tree/index.ts";
import type { MemberWatch } from "./member-watch.ts";
import { peerRefOf } from "./member-meta.ts";
import type { SeedKeeper } from "./seed-keeper.ts";

/** The trees hear of changes at most so often, ms, and so much more for each member. */
const INTERVAL_MS = 100;
const INTERVAL_MS_EACH = 0.5;
/** The first lists are given at once: a node that starts learns everybody with its first view. */
const FIRST_LISTS = 3;

interface Made {
  readonly member: Member;
  readonly treeMember: TreeMember;
}

export interface TreeMembersParts {
  readonly swim: Swim;
  readonly watch: MemberWatch;
  readonly seeds: SeedKeeper;
}

export class TreeMembers {
  readonly #parts: TreeMembersParts;
  /**
   * By id; a member that changes is another object. Not a WeakMap: a thousand members in each of
   * many views make those slow to collect.
   */
  readonly #made = new Map<string, Made>();
  #lastMs = -Infinity;
  #lists = 0;
  /** The trees know of this member alone. */
  #isAlone = true;
  /** When the trees are to hear of the members; Infinity: nothing changed. */
  nextMs: number;
  /** Since when this node has its boot id. */
  startedMs: number;

  constructor(parts: TreeMembersParts, nowMs: number) {
    this.#parts = parts;
    this.nextMs = nowMs;
    this.startedMs = nowMs;
  }

  changed(nowMs: number): void {
    const isFirst = this.#lists < FIRST_LISTS;
    const lateMs = isFirst ? 0 : INTERVAL_MS_EACH * this.#parts.swim.presentCount;
    // A newcomer's first peer is what its first join waits for.
    const atMs = this.#isAlone ? nowMs : Math.max(nowMs, this.#lastMs + INTERVAL_MS + lateMs);
    this.nextMs = Math.min(this.nextMs, atMs);
  }

  /** Other addresses are seeds now. */
  reseed(nowMs: number): void {
    this.#made.clear();
    this.changed(nowMs);
  }

  /** All that are present. */
  take(nowMs: number): readonly TreeMember[] {
    const { swim } = this.#parts;
    this.nextMs = Infinity;
    this.#lastMs = nowMs;
    this.#lists += 1;
    this.#isAlone = swim.presentCount === 1;
    const list: TreeMember[] = [];
    for (const member of swim.members()) {
      if (!isPresent(member)) continue;
      const treeMember = this.of(member);
      if (treeMember !== undefined) list.push(treeMember);
    }
    if (this.#made.size > 2 * list.length) {
      for (const [id, { member }] of this.#made) if (swim.get(id) !== member) this.#made.delete(id);
    }
    return list;
  }

  /** Undefined when its metadata cannot be read. */
  of(member: Member): TreeMember | undefined {
    const known = this.#made.get(member.id);
    if (known?.member === member) return known.treeMember;
    const ref = peerRefOf(member);
    if (ref === undefined) return undefined;
    const { swim, watch, seeds } = this.#parts;
    const { state, changedMs } = member;
    const isSelf = member.id === swim.self.id;
    const presentMs = isSelf ? this.startedMs : watch.presentMs(member.id);
    const aliveSinceMs = presentMs ?? changedMs;
    const { id, boot, address, exchangePort, zone, version } = ref;
    const isSeed = seeds.has(address);
    const peer = { id, boot, address, exchangePort, zone, version };
    const treeMember = { ...peer, state, aliveSinceMs, isSeed };
    this.#made.set(member.id, { member, treeMember });
    return treeMember;
  }
}
