/**
 * Small blobs of large layers that are sound: mounted, within bounds of memory. The full counts
 * take minutes: FAASNET_LARGE=1 has a million files and 10 GB of zeros, without it a tenth.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Lab, faasnetMount, needs, run } from "../support/lab/index.ts";
import {
  gzipLayer,
  imageOf,
  manyFiles,
  manyLinks,
  publish,
  watchMemory,
  zeros,
} from "../support/hostile/index.ts";
import { FakeRegistry } from "../support/registry/fake-registry.ts";

const IS_FULL = process.env["FAASNET_LARGE"] === "1";
const MIB = 1024 * 1024;
const FILES = IS_FULL ? 1_000_000 : 100_000;
const ZERO_BYTES = IS_FULL ? 10_000_000_000 : 1_000_000_000;
const LINKS = 100_000;

interface LargeCase {
  readonly name: string;
  readonly tar: () => Iterable<Buffer>;
  /** What a job process may hold at most. */
  readonly rssMax: number;
  /** A shell command in the mounted folder, and what it prints. */
  readonly command: string;
  readonly prints: string;
}

const CASES: readonly LargeCase[] = [
  {
    name: `${FILES} files`,
    tar: () => manyFiles(FILES),
    // Measured 160 MiB for a tenth, 860 MiB in full.
    rssMax: (IS_FULL ? 1200 : 350) * MIB,
    command: `find . -type f | wc -l; ls d${FILES / 1000 - 1} | wc -l`,
    prints: `${FILES}\n1000\n`,
  },
  {
    name: `${LINKS} hard links to one file`,
    tar: () => manyLinks(LINKS),
    rssMax: 250 * MIB,
    command: `stat -c %h target; ls links | wc -l; cat links/${LINKS - 1}`,
    prints: `${LINKS + 1}\n${LINKS}\none file`,
  },
  {
    name: `${ZERO_BYTES} bytes of zeros`,
    tar: () => zeros(ZERO_BYTES),
    rssMax: 200 * MIB,
    command: `stat -c %s zeros; tail -c 3 zeros | od -An -tx1`,
    prints: `${ZERO_BYTES}\n 00 00 00\n`,
  },
];

describe("A large layer in a small blob", function () {
  this.timeout(IS_FULL ? 900_000 : 120_000);
  let lab: Lab;
  let registry: FakeRegistry;

  before(async function () {
    needs(this, { root: true, fuse: true, program: true });
    lab = await Lab.create();
    registry = lab.use(await FakeRegistry.start());
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  for (const [index, one] of CASES.entries()) {
    it(`is mounted within bounds: ${one.name}`, async () => {
      const layer = await gzipLayer(one.tar());
      const reference = publish(registry, `large/${index}`, imageOf([layer]));
      const memory = watchMemory(lab);
      const startedMs = performance.now();

      const mounted = await faasnetMount(lab, reference);
      const seconds = (performance.now() - startedMs) / 1000;
      const peakRssBytes = await memory();
      const script = `cd ${join(mounted.folder)} && ${one.command}`;
      const { stdout } = await run("sh", ["-ec", script]);
      await mounted.end();

      assert.equal(stdout, one.prints);
      const figures = `${(peakRssBytes / MIB).toFixed(0)} MiB, ${seconds.toFixed(1)} s`;
      if (IS_FULL) process.stderr.write(`      ${layer.size} bytes of blob: ${figures}\n`);
      assert.ok(peakRssBytes > 0 && peakRssBytes < one.rssMax, figures);
    });
  }
});
