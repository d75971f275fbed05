import assert from "node:assert/strict";
import { fuzz, type FuzzReport } from "../../fuzz/driver.ts";
import { Inputs, runLoop, type Finding } from "../../fuzz/loop.ts";
import { TARGETS } from "../../fuzz/targets.ts";

const SEED = 20_240_229;
/** Few enough for every build; scripts/fuzz does the many. */
const RUNS = 100;

for (const target of TARGETS) {
  describe(`the fuzz target ${target.name}`, () => {
    it("accepts its seeds", async () => {
      for (const bytes of target.seeds()) await target.run(Buffer.from(bytes));
    });

    it(`shows no defect in ${RUNS} runs`, async () => {
      const findings: Finding[] = [];
      let outcomes = 0;
      await runLoop(target, {
        seed: SEED,
        first: 0,
        end: RUNS,
        onOutcome: () => (outcomes += 1),
        onFinding: (finding) => findings.push(finding),
      });

      assert.deepEqual(findings, []);
      assert.equal(outcomes, RUNS);
    });
  });
}

describe("the fuzz targets", () => {
  it("have names of their own", () => {
    assert.equal(new Set(TARGETS.map(({ name }) => name)).size, TARGETS.length);
  });

  it("get the same input for the same seed and run, another for any other", () => {
    for (const target of TARGETS) {
      const first = new Inputs(target);
      const second = new Inputs(target);
      const distinct = new Set<string>();
      for (let run = 50; run >= 0; run -= 1) {
        const input = first.of(SEED, run).toString("base64");
        assert.equal(second.of(SEED, run).toString("base64"), input);
        distinct.add(input);
        distinct.add(first.of(SEED + 1, run).toString("base64"));
      }
      assert.ok(distinct.size > 70, `${target.name}: ${distinct.size} inputs of 102 differ`);
    }
  });
});

describe("the fuzz driver", () => {
  const module = new URL("../../fuzz/planted.js", import.meta.url).href;

  async function plant(target: string, runs: number): Promise<FuzzReport> {
    const hangMs = target === "endless" ? 300 : 10_000;
    return fuzz({ module, target, seed: SEED, first: 0, end: runs, hangMs });
  }

  it("says how many runs were accepted", async () => {
    const report = await plant("sound", 200);

    assert.deepEqual(report.findings, []);
    assert.equal(report.runs, 200);
    assert.ok(report.accepted > 50 && report.accepted < 200, `${report.accepted} accepted`);
  });

  for (const [target, kind, text] of [
    ["foreign", "throw", /TypeError: planted/],
    ["foreign-later", "throw", /RangeError: planted/],
    ["rejection", "rejection", /planted/],
    ["greedy", "growth", /300 MiB/],
    ["slow", "slow", /took 1\d\d\d ms/],
    ["endless", "hang", /does not end/],
    ["heap", "crash", /memory/],
  ] as const) {
    it(`finds what is planted: ${target}`, async () => {
      const { findings } = await plant(target, 3);

      assert.ok(findings.length > 0);
      for (const finding of findings) {
        assert.equal(finding.kind, kind, finding.text);
        assert.match(finding.text, text);
      }
    });
  }

  it("goes on behind a run that hangs", async () => {
    const { findings, runs } = await plant("endless", 6);

    const hung = findings.map(({ run }) => run);
    assert.ok(hung.length > 1, `${hung.length} findings`);
    assert.equal(new Set(hung).size, hung.length);
    assert.equal(runs, 6);
  });
});
