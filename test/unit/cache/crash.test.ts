/**
 * The disk cache and the keeper under crashes: no reader gets a byte that is not the layer's, no
 * bitmap vouches for one, no space is lost. The long run is scripts/crashes.
 */
import fc from "fast-check";
import { cachePlans, checkCache } from "../../support/crash/cache-case.ts";

describe("DiskCache and keeper over crashes, restarts and evictions at any moment", () => {
  it("serve the layer's bytes only, and recover from every crash state", async function () {
    this.timeout(60_000);
    const counts = { crashPoints: 0, states: 0 };
    await fc.assert(
      fc.asyncProperty(cachePlans(20), async (plan) => {
        await checkCache(plan, { pointEvery: 10, statesPerPoint: 3 }, counts);
      }),
      { seed: 11, numRuns: 12, endOnFailure: true },
    );
  });
});
