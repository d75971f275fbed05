/** Who is responsible for what a key names: ranked as trees' managers are (tree/ranking.ts). */
import type { PeerRef } from "../peer-ref.ts";
import { TREE_PRESETS } from "../tree/index.ts";
import type { TreeMember } from "../tree/index.ts";
import { Ranking } from "../tree/ranking.ts";

/** Of one key. */
const OWNERS_MAX = 2;

/** Of a key; this member may be among the owners, never among the others. */
export interface RankedMembers {
  /** The two highest ranked, the first of which is to act: settled ones before all others. */
  readonly owners: readonly PeerRef[];
  /** Others that may have been owner before: in another view, or as settled for longer. */
  readonly predecessors: readonly PeerRef[];
  /** The highest ranked others, as many as were asked for. */
  readonly others: readonly PeerRef[];
}

export class MemberRanking {
  readonly #ranking: Ranking;
  #given: readonly TreeMember[] | undefined;

  constructor(selfId: string) {
    this.#ranking = new Ranking({
      selfId: () => selfId,
      settledMs: TREE_PRESETS.lan.settledMs,
      isSilent: () => false, // who asks finds out, and asks the next
    });
  }

  /** `members`: those present; the same array as long as nothing has changed. */
  rank(
    key: string,
    {
      members,
      othersMax,
      nowMs,
    }: {
      readonly members: readonly TreeMember[];
      readonly othersMax: number;
      readonly nowMs: number;
    },
  ): RankedMembers {
    const ranking = this.#ranking;
    if (this.#given !== members) {
      this.#given = members;
      ranking.update(members.filter(({ exchangePort }) => exchangePort !== 0));
    }
    const { first, second } = ranking.top(key, nowMs);
    const spare = second === undefined ? ranking.topOfPresent(key) : {};
    const owners = new Set([first, second, spare.first, spare.second]);
    owners.delete(undefined);
    return {
      owners: [...owners]
        .slice(0, OWNERS_MAX)
        .flatMap((one) => one ?? [])
        .map(refOf),
      predecessors: ranking.predecessors(key, nowMs).map(refOf),
      others: othersMax === 0 ? [] : this.#others(key, othersMax),
    };
  }

  #others(key: string, max: number): readonly PeerRef[] {
    const ranking = this.#ranking;
    const scored = ranking
      .others()
      .map((member) => ({ member, score: ranking.score(key, member.id) }));
    scored.sort((one, other) => other.score - one.score);
    return scored.slice(0, max).map(({ member }) => refOf(member));
  }
}

/** Without what only ranking needs: it crosses to another thread. */
function refOf({ id, boot, address, exchangePort, zone, version }: TreeMember): PeerRef {
  return { id, boot, address, exchangePort, zone, version };
}
