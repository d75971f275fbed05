/** Who owns what a key names: all who know the same members say the same. */
import assert from "node:assert/strict";
import { MemberRanking } from "../../../../src/peer/node/member-ranking.ts";
import type { RankedMembers } from "../../../../src/peer/node/member-ranking.ts";
import { TREE_PRESETS } from "../../../../src/peer/tree/index.ts";
import type { TreeMember } from "../../../../src/peer/tree/index.ts";

const NOW_MS = 1_000_000;
const SETTLED = NOW_MS - TREE_PRESETS.lan.settledMs;
const KEY = "document:registry.example/library/app";

function memberOf(index: number, change: Partial<TreeMember> = {}): TreeMember {
  const id = `n${index}`;
  return {
    ...{ id, boot: String(index).padStart(32, "0"), zone: "", version: 1 },
    ...{ address: { host: `10.0.0.${index}`, port: 7411 }, exchangePort: 7411 },
    ...{ state: "alive", aliveSinceMs: SETTLED - 100_000, isSeed: false, ...change },
  };
}

function rank(selfId: string, members: readonly TreeMember[], othersMax = 0): RankedMembers {
  return new MemberRanking(selfId).rank(KEY, { members, othersMax, nowMs: NOW_MS });
}

const idsOf = (members: RankedMembers["owners"]): string[] => members.map(({ id }) => id);

const MEMBERS = Array.from({ length: 20 }, (_, index) => memberOf(index));

describe("the ranking of members", () => {
  it("is the same on every node, in whatever order the members are known", () => {
    const one = idsOf(rank("n1", MEMBERS).owners);
    const other = idsOf(rank("n2", MEMBERS.toReversed()).owners);

    assert.equal(one.length, 2);
    assert.deepEqual(one, other);
  });

  it("differs from repository to repository", () => {
    const ranking = new MemberRanking("n1");
    const first = Array.from({ length: 50 }, (_, index) => {
      const options = { members: MEMBERS, othersMax: 0, nowMs: NOW_MS };
      return ranking.rank(`${KEY}${index}`, options).owners[0]?.id;
    });

    assert.ok(new Set(first).size > 10, first.join(" "));
  });

  it("prefers those that are settled, and seeds, to all others", () => {
    const young = MEMBERS.map((member) => ({ ...member, aliveSinceMs: NOW_MS - 1000 }));
    const seed = memberOf(30, { aliveSinceMs: NOW_MS - 1000, isSeed: true });

    const { owners } = rank("n1", [...young, seed]);

    assert.equal(owners.length, 2);
    assert.equal(owners[0]?.id, "n30");
    assert.deepEqual(idsOf(rank("n1", young).owners), idsOf(rank("n1", MEMBERS).owners));
  });

  it("passes over those that serve nothing or are dead", () => {
    const [first = "", second = ""] = idsOf(rank("n1", MEMBERS).owners);
    const less = MEMBERS.map((member) => {
      if (member.id === first) return { ...member, exchangePort: 0 };
      return member.id === second ? { ...member, state: "dead" as const } : member;
    });

    const { owners, others } = rank("n1", less, 100);

    assert.ok(![...owners, ...others].some(({ id }) => id === first || id === second));
  });

  it("names the others by rank, as many as wanted, and never itself", () => {
    const all = idsOf(rank("n1", MEMBERS, 100).others);
    assert.equal(all.length, MEMBERS.length - 1);
    assert.ok(!all.includes("n1"));
    assert.deepEqual(idsOf(rank("n1", MEMBERS, 3).others), all.slice(0, 3));
  });

  it("knows who was first before the present first was settled", () => {
    const [first = "", second = ""] = idsOf(rank("n1", MEMBERS).owners);
    const now = MEMBERS.map((member) =>
      member.id === first ? { ...member, aliveSinceMs: SETTLED } : member,
    );

    const { owners, predecessors } = rank(first, now);

    assert.equal(owners[0]?.id, first);
    assert.ok(idsOf(predecessors).includes(second));
  });

  it("gives plain references, and knows nobody where nobody is", () => {
    const [owner] = rank("n1", MEMBERS).owners;
    assert.deepEqual(Object.keys(owner ?? {}).sort(), [
      ...["address", "boot", "exchangePort", "id", "version", "zone"],
    ]);
    assert.deepEqual(rank("n1", [], 10), { owners: [], predecessors: [], others: [] });
  });
});
