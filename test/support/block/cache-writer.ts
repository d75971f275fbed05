/**
 * A process that writes blocks into a disk cache until it is killed, evicting all the time.
 * Arguments: root, quota in bytes (never reached), seed. Prints a line for each block written.
 */
import { silentLogger } from "../../../src/base/log.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { punchHole } from "../../../src/base/native.ts";
import { DiskCache, nodeCacheFiles, readBootId } from "../../../src/cache/index.ts";
import { tarOf } from "./cache-bench.ts";
import { sampleLayer } from "./sample-layer.ts";
import type { SampleLayer } from "./sample-layer.ts";

/** The layer that both sides know: blocks of odd sizes, some smaller than a page. */
export function writerLayer(): SampleLayer {
  return sampleLayer(
    77,
    Array.from({ length: 60 }, (_, index) => ({
      tarLength: index % 7 === 3 ? 300 + index : 60_000 + index * 977,
    })),
  );
}

async function main(root: string, quotaBytes: number, seed: number): Promise<void> {
  const cache = await DiskCache.open(
    root,
    {
      clock: systemClock,
      logger: silentLogger,
      files: nodeCacheFiles(punchHole),
      bootId: await readBootId(),
      drop: () => Promise.resolve(),
    },
    { quotaBytes, reserveBytes: 0, flushDelayMs: 5 },
  );
  const sample = writerLayer();
  const layer = await cache.layer(sample.id, sample.table);
  process.stdout.write("ready\n");
  for (let turn = seed; ; turn += 7) {
    const index = turn % sample.table.count;
    // Past the quota's books, which are not what this is about.
    if (layer.has(index)) await layer.file.leave([index]).finish();
    const isWritten = await layer.write(index, tarOf(sample, index));
    if (isWritten) process.stdout.write(`${index}\n`);
  }
}

const [, , root, quota, seed] = process.argv;
if (root !== undefined && quota !== undefined && process.argv[1]?.includes("cache-writer")) {
  await main(root, Number(quota), Number(seed));
}
