import assert from "node:assert/strict";
import { silentLogger } from "../../../../src/base/log.ts";
import type { Logger } from "../../../../src/base/log.ts";
import { Findings } from "../../../../src/peer/node/findings.ts";

function make(): { readonly findings: Findings; readonly lines: string[] } {
  const lines: string[] = [];
  const log: Logger = { ...silentLogger, warn: (event) => lines.push(event) };
  return { findings: new Findings(log), lines };
}

describe("Findings", () => {
  it("count what comes again, and are over when it does not or is well", () => {
    const { findings, lines } = make();
    findings.note("clock-skew", "a", "1 s", 0);
    findings.note("clock-skew", "a", "2 s", 1000);
    const expected = { kind: "clock-skew", who: "a", detail: "2 s", count: 2, ageMs: 500 };
    assert.deepEqual(findings.list(1500), [expected]);
    assert.deepEqual(lines, ["peer-finding"]);
    assert.deepEqual(findings.list(400_000), []);
    findings.note("clock-skew", "a", "3 s", 400_000);
    assert.equal(lines.length, 2);
    findings.clear("clock-skew", "a");
    assert.deepEqual(findings.list(400_001), []);
  });

  it("of strangers neither fill the log nor push others out", () => {
    const { findings, lines } = make();
    findings.note("duplicate-name", "a", "", 0);
    for (let count = 0; count < 10_000; count += 1) {
      findings.note("wrong-key", `10.0.${count >> 8}.${count & 255}:1`, "", count);
    }
    const list = findings.list(10_000);
    assert.equal(list.length, 65);
    assert.ok(list.some(({ kind }) => kind === "duplicate-name"));
    assert.equal(lines.length, 11);
  });
});
