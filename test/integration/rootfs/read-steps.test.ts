/**
 * Never a wrong byte after an error: readers that fail or are killed at every 4 KiB of a read over
 * the border of two blocks, on this machine's kernel. Longer, and other kernels: scripts/kernels.
 */
import assert from "node:assert/strict";
import { MOUNT_MODES } from "../../../src/rootfs/index.ts";
import type { MountMode } from "../../../src/rootfs/index.ts";
import { needsFuse } from "../../support/fuse/keeper-fixture.ts";
import { READ_KINDS } from "../../support/kernels/page-reader.ts";
import { FAULTS, PAGE_BYTES, runReadSteps } from "../../support/kernels/read-steps.ts";
import type { Step } from "../../support/kernels/read-steps.ts";

const FILE_BYTES = (9 << 17) + 1000;
const PAGES = Math.ceil(FILE_BYTES / PAGE_BYTES);

/** Every page, the kinds of reading in turn; in erofs mode with both faults, else in turn too. */
function stepsOf(mode: MountMode): readonly Step[] {
  const steps: Step[] = [];
  for (let page = 0; page < PAGES; page += 1) {
    for (const [index, fault] of FAULTS.entries()) {
      if (mode !== "erofs" && page % FAULTS.length !== index) continue;
      const kind = READ_KINDS[(page + index) % READ_KINDS.length] ?? "read";
      steps.push({ kind, fault, page });
    }
  }
  return steps;
}

describe("readers that fail or are killed at every 4 KiB", () => {
  before(async function () {
    await needsFuse(this);
  });

  for (const mode of MOUNT_MODES) {
    it(`leave nothing wrong behind in ${mode} mode`, async function () {
      this.timeout(120_000);
      const steps = stepsOf(mode);
      const totals = await runReadSteps({ mode, fileBytes: FILE_BYTES, steps });
      assert.deepEqual(totals.examples, []);
      const fails = steps.filter(({ fault }) => fault === "fail").length;
      const { runs, failed, killed } = totals;
      assert.deepEqual({ runs, failed }, { runs: steps.length, failed: fails });
      // The others had ended their part and were between two reads.
      const kills = steps.length - fails;
      assert.ok(killed >= kills * 0.9, `${killed} of ${kills} were blocked when they were killed`);
    });
  }
});
