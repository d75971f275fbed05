/** The cache's reserve, when it is others that write to the same disk. */
import assert from "node:assert/strict";
import { CacheBench, tarOf } from "../../support/block/cache-bench.ts";
import { evenLayer } from "../../support/block/sample-layer.ts";

const BLOCK = 4096;
const NEVER_MS = 10_000;

describe("DiskCache.giveWay", () => {
  it("evicts what the reserve lacks, the oldest first, and no more", async () => {
    const bench = new CacheBench({ reserveBytes: 10 * BLOCK, quotaBytes: 50 * BLOCK });
    await using cache = await bench.open();
    const sample = evenLayer(21, 8, BLOCK);
    const layer = await cache.layer(sample.id, sample.table);
    bench.files.freeSpace = 100 * BLOCK;
    for (let index = 0; index < 8; index += 1) {
      assert.equal(await layer.write(index, tarOf(sample, index)), true);
    }
    await bench.clock.advance(NEVER_MS);

    bench.files.freeSpace = 10 * BLOCK;
    await cache.giveWay();
    assert.equal(layer.usage().blocks, 8, "the reserve is there");
    bench.files.freeSpace = 7 * BLOCK;
    await cache.giveWay();

    assert.deepEqual(layer.presentRanges(), [{ start: 3 * BLOCK, end: 8 * BLOCK }]);
    assert.ok(bench.events.includes("cache-gave-way"));
  });

  it("does nothing where it holds nothing", async () => {
    const bench = new CacheBench({ reserveBytes: 100 * BLOCK });
    await using cache = await bench.open();
    bench.files.freeSpace = 0;
    await cache.giveWay();
    assert.ok(!bench.events.includes("cache-gave-way"));
  });
});
