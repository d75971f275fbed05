/** The long run: scripts/kills. Its last line is `N kills, N failures, seed S`, with counts. */
import { parseArgs } from "node:util";
import { withLab, type Lab, type MountMode } from "../lab/index.ts";
import { describeKill, partsOf, planOf, type Kill } from "./plan.ts";
import { KillSession } from "./session.ts";

/** Kills between two looks for leaks: whole rounds. */
const CHECKPOINT_KILLS = 20;
/** After so many the run ends: they are mostly the same one. */
const FAILURES_MAX = 10;
const LOG_LINES = 40;
const HISTORY = 4;
const MODES: readonly MountMode[] = ["auto", "erofs", "loop", "fuse"];

function write(line: string): void {
  process.stdout.write(`${line}\n`);
}

function numberOf(text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new Error(`${text ?? ""} is no count`);
}

interface Run {
  readonly seed: number;
  readonly mode: MountMode;
  readonly kills: number;
  readonly isVerbose: boolean;
  readonly startedMs: number;
  readonly done: Kill[];
  failures: number;
}

/** From one failure, or the start, to the next one; answers the kills that are left. */
async function session(run: Run, lab: Lab, plan: readonly Kill[]): Promise<readonly Kill[]> {
  const kills = await KillSession.start(lab, { seed: run.seed, mode: run.mode });
  write(`phases without a kill: ${kills.measured}`);
  let left = plan;
  let since = 0;
  const history: Kill[] = [];
  try {
    for (const kill of plan) {
      history.push(kill);
      run.done.push(kill);
      left = left.slice(1);
      since += 1;
      if (run.isVerbose) write(`${seconds(run)} s: ${describeKill(kill)}`);
      await kills.kill(kill);
      if (since % CHECKPOINT_KILLS !== 0) continue;
      await kills.checkpoint();
      write(
        `${run.done.length} of ${run.kills} kills, ${run.failures} failures, ${seconds(run)} s`,
      );
    }
    await kills.checkpoint();
    await kills.stop();
  } catch (error) {
    run.failures += 1;
    write(`FAILURE: ${String(error)}`);
    for (const before of history.slice(-HISTORY)) write(`  after ${describeKill(before)}`);
    write(await kills.daemon.logTail(LOG_LINES));
    await kills.stop().catch(() => undefined);
    // The next laboratory begins with a round of its own, as far as there is one.
    const next = left.findIndex(({ phase }) => phase === "pull");
    left = next === -1 ? [] : left.slice(next);
  }
  return left;
}

function seconds({ startedMs }: Run): string {
  return ((performance.now() - startedMs) / 1000).toFixed(0);
}

function victimCounts(kills: readonly Kill[]): string {
  const counts = new Map<string, number>();
  for (const { victims } of kills) {
    const name = [...victims].sort().join("+");
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => `${name} ${count}`).join(", ");
}

async function main(): Promise<number> {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    options: { kills: text, seed: text, mode: text, jobs: text, verbose: { type: "boolean" } },
  });
  // A seed is only a name of the run.
  const seed = numberOf(values.seed, 1 + (Date.now() % 1_000_000));
  const kills = numberOf(values.kills, 300);
  const jobs = numberOf(values.jobs, 1);
  const mode = MODES.find((one) => one === (values.mode ?? "auto"));
  if (mode === undefined) throw new Error(`${values.mode ?? ""} is no mode`);
  const isVerbose = values.verbose ?? false;
  const startedMs = performance.now();
  const run: Run = { seed, mode, kills, isVerbose, startedMs, done: [], failures: 0 };
  write(`seed ${seed}, ${kills} kills, mode ${mode}, ${jobs} at a time`);
  try {
    await withLab(async (lab) => {
      const parts = partsOf(planOf(seed, kills), jobs).map(async (part) => {
        for (let left = part; left.length > 0 && run.failures < FAILURES_MAX;) {
          left = await session(run, lab, left);
        }
      });
      await Promise.all(parts);
    });
  } catch (error) {
    // What a failure leaves behind is no second one.
    if (run.failures === 0) run.failures += 1;
    write(`FAILURE at the end: ${String(error)}`);
  }
  const counts = victimCounts(run.done);
  write(`${run.done.length} kills, ${run.failures} failures, seed ${seed}: ${counts}`);
  return run.failures;
}

process.exit((await main()) === 0 ? 0 : 1);
