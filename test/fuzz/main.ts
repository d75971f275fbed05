/** The program behind scripts/fuzz. */
import { parseArgs } from "node:util";
import { DaemonError, errorMessage } from "../../src/base/errors.ts";
import { fuzz } from "./driver.ts";
import type { FuzzReport } from "./driver.ts";
import { Inputs, runLoop } from "./loop.ts";
import type { Finding } from "./loop.ts";
import { TARGETS } from "./targets.ts";
import type { FuzzTarget } from "./target.ts";

const RUNS_DEFAULT = 1_000_000;
const SEED_DEFAULT = 1;
/** How much of an input or of a stack is printed. */
const BASE64_CHARS_MAX = 2000;
const TEXT_LINES_MAX = 8;
const MODULE = new URL("targets.js", import.meta.url).href;

function numberOf(text: string | undefined, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (!Number.isSafeInteger(value) || value < 0 || value > 0x7fff_ffff) {
    throw new DaemonError("invalid-argument", `not a number: ${String(text)}`);
  }
  return value;
}

function targetsOf(names: readonly string[]): readonly FuzzTarget[] {
  if (names.length === 0) return TARGETS;
  return names.map((name) => {
    const target = TARGETS.find((one) => one.name === name);
    if (target !== undefined) return target;
    const known = TARGETS.map((one) => one.name).join(" ");
    throw new DaemonError("invalid-argument", `no target ${name}; there are: ${known}`);
  });
}

function printFinding(target: FuzzTarget, seed: number, finding: Finding): void {
  const input = new Inputs(target).of(seed, finding.run);
  const base64 = input.toString("base64");
  const isCut = base64.length > BASE64_CHARS_MAX;
  console.log(`FINDING ${finding.kind}: target ${target.name}, seed ${seed}, run ${finding.run}`);
  console.log(finding.text.split("\n").slice(0, TEXT_LINES_MAX).join("\n"));
  console.log(`input of ${input.length} bytes, base64${isCut ? ", cut" : ""}:`);
  console.log(base64.slice(0, BASE64_CHARS_MAX));
  console.log(`again: scripts/fuzz ${target.name} --seed ${seed} --run ${finding.run}`);
}

function printReport(report: FuzzReport): void {
  const share = report.runs === 0 ? 0 : (100 * report.accepted) / report.runs;
  const rate = Math.round(report.runs / Math.max(report.seconds, 0.001));
  console.log(
    [
      report.target.padEnd(18),
      `${report.runs} runs`.padStart(13),
      `${report.seconds.toFixed(1)} s`.padStart(9),
      `${rate} runs/s`.padStart(14),
      `${share.toFixed(1)} % accepted`.padStart(17),
      `${report.findings.length} findings`.padStart(13),
    ].join(" "),
  );
}

/** One run, here and now: a debugger can be attached, a hang can be looked at. */
async function replay(target: FuzzTarget, seed: number, run: number): Promise<Finding[]> {
  const findings: Finding[] = [];
  const input = new Inputs(target).of(seed, run);
  console.log(`input of ${input.length} bytes, base64:\n${input.toString("base64")}`);
  await runLoop(target, {
    seed,
    first: run,
    end: run + 1,
    onOutcome: (_run, refusal) => {
      console.log(refusal === undefined ? "accepted" : `refused: ${errorMessage(refusal)}`);
    },
    onFinding: (finding) => findings.push(finding),
  });
  return findings;
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runs: { type: "string" },
      run: { type: "string" },
      seconds: { type: "string" },
      seed: { type: "string" },
    },
  });
  const seed = numberOf(values.seed, SEED_DEFAULT);
  const end = numberOf(values.runs, RUNS_DEFAULT);
  const seconds = values.seconds === undefined ? Infinity : numberOf(values.seconds, 0);
  const targets = targetsOf(positionals);
  let runs = 0;
  let findings = 0;
  for (const target of targets) {
    if (values.run !== undefined) {
      const found = await replay(target, seed, numberOf(values.run, 0));
      for (const finding of found) printFinding(target, seed, finding);
      runs += 1;
      findings += found.length;
      continue;
    }
    const report = await fuzz({
      module: MODULE,
      target: target.name,
      seed,
      first: 0,
      end,
      seconds,
    });
    for (const finding of report.findings) printFinding(target, seed, finding);
    printReport(report);
    runs += report.runs;
    findings += report.findings.length;
  }
  console.log(`${targets.length} targets, ${runs} runs, ${findings} findings`);
  return findings === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(`fuzz: ${errorMessage(error)}`);
  process.exitCode = 2;
}
