/** The long run: scripts/crashes. Its last line is `N states of the journal, …, N failures`. */
import { parseArgs } from "node:util";
import fc from "fast-check";
import { cachePlans, checkCache } from "./cache-case.ts";
import { checkJournal, groupsOf } from "./journal-case.ts";

/** Cases between two lines of progress. */
const BATCH = 25;

interface Counts {
  crashPoints: number;
  states: number;
}

interface Target {
  readonly name: string;
  check(options: fc.Parameters<unknown[]>, counts: Counts): Promise<fc.RunDetails<unknown[]>>;
}

const TARGETS: readonly Target[] = [
  {
    name: "journal",
    check: async (options, counts) =>
      fc.check(
        fc.asyncProperty(groupsOf(10), groupsOf(4), fc.nat(), async (first, second, seed) => {
          await checkJournal({ first, second, seed }, 4, counts);
        }) as fc.IAsyncProperty<unknown[]>,
        options,
      ),
  },
  {
    name: "cache",
    check: async (options, counts) =>
      fc.check(
        fc.asyncProperty(cachePlans(25), async (plan) => {
          await checkCache(plan, { pointEvery: 8, statesPerPoint: 4 }, counts);
        }) as fc.IAsyncProperty<unknown[]>,
        options,
      ),
  },
];

function write(line: string): void {
  process.stdout.write(`${line}\n`);
}

function tell({ name }: Target, seed: number, details: fc.RunDetails<unknown[]>): void {
  const path = details.counterexamplePath ?? "";
  const { errorInstance } = details;
  const text = errorInstance instanceof Error ? errorInstance.stack : String(errorInstance);
  write(`${name}: seed ${seed}, path ${path}\n${JSON.stringify(details.counterexample)}\n${text}`);
}

/** Batches of one seed each, until enough states were checked. */
async function longRun(target: Target, first: number, states: number): Promise<[Counts, number]> {
  const counts = { crashPoints: 0, states: 0 };
  const started = performance.now();
  for (let seed = first; counts.states < states; seed += 1) {
    const details = await target.check({ seed, numRuns: BATCH, endOnFailure: true }, counts);
    if (details.failed) {
      tell(target, seed, details);
      return [counts, 1];
    }
    const rate = counts.states / ((performance.now() - started) / 1000);
    const { crashPoints } = counts;
    const done = `${counts.states} states of ${crashPoints} crash points`;
    write(`${target.name}: ${done}, seed ${seed}, ${rate.toFixed(0)} a second`);
  }
  return [counts, 0];
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { runs: { type: "string" }, seed: { type: "string" }, path: { type: "string" } },
});
const seed = Number(values.seed ?? 1);
const states = Number(values.runs ?? 100_000);
const targets = TARGETS.filter(
  ({ name }) => positionals.length === 0 || positionals.includes(name),
);
if (!Number.isInteger(seed) || !Number.isInteger(states) || targets.length === 0) {
  throw new Error("see scripts/crashes --help");
}
let failures = 0;
if (values.path === undefined) {
  const parts: string[] = [];
  for (const target of targets) {
    const [counts, failed] = await longRun(target, seed, states);
    parts.push(`${counts.states} states of the ${target.name}`);
    failures += failed;
  }
  write(`${parts.join(", ")}, seed ${seed}, ${failures} failures`);
} else {
  for (const target of targets) {
    // Once more, and made smaller.
    const options = { seed, path: values.path, numRuns: BATCH };
    const details = await target.check(options, { crashPoints: 0, states: 0 });
    if (details.failed) tell(target, seed, details);
    else write(`${target.name}: seed ${seed}, path ${values.path}: no failure`);
    failures += details.failed ? 1 : 0;
  }
}
process.exit(failures === 0 ? 0 : 1);
