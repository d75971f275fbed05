/**
 * The metastore crashed at every change of its disk: every acknowledged transaction is there, each
 * other one whole or not at all, and life goes on. The long run is scripts/crashes.
 */
import fc from "fast-check";
import { checkJournal, groupsOf } from "../../../support/crash/journal-case.ts";

describe("metastore over a crash at any change of the disk", () => {
  it("holds what it acknowledged, also after a second crash", async function () {
    this.timeout(60_000);
    const counts = { crashPoints: 0, states: 0 };
    await fc.assert(
      fc.asyncProperty(groupsOf(8), groupsOf(3), fc.nat(), async (first, second, seed) => {
        await checkJournal({ first, second, seed }, 3, counts);
      }),
      { seed: 4, numRuns: 15 },
    );
  });
});
