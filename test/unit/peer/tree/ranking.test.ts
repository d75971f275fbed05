/** Who manages which image's tree. */
import assert from "node:assert/strict";
import { Ranking } from "../../../../src/peer/tree/ranking.ts";
import { imageOf } from "../../../support/peer/tree-checks.ts";
import { refOf } from "../../../support/peer/tree-samples.ts";

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1);
}

describe("the ranking of managers", () => {
  it("spreads images over settled members, and moves few when one comes", () => {
    const ranking = new Ranking({ selfId: () => "n0", settledMs: 30_000, isSilent: () => false });
    const member = (number: number, aliveSinceMs: number) => ({
      ...refOf(number),
      state: "alive" as const,
      aliveSinceMs,
      isSeed: number === 1,
    });
    const list = numbers(10).map((number) => member(number, 0));
    ranking.update(list);
    const images = numbers(1000).map(imageOf);
    const winners = (nowMs: number): (string | undefined)[] =>
      images.map((image) => ranking.top(image, nowMs).first?.id);
    assert.deepEqual(new Set(winners(29_999)), new Set(["n1"]));
    const before = winners(100_000);
    for (const number of numbers(10)) {
      const share = before.filter((id) => id === `n${number}`).length;
      assert.ok(share > 60 && share < 150, `${share}`);
    }
    ranking.update([...list, member(11, 100_000)]);
    assert.deepEqual(winners(100_001), before);
    const after = winners(130_000);
    const moved = after.filter((id, index) => id !== before[index]);
    assert.ok(moved.length > 50 && moved.length < 150);
    assert.ok(moved.every((id) => id === "n11"));
  });
});
