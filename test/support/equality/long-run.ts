/**
 * The long run: scripts/equality. Its last line is
 * `N images, N differences, N refused, N metadata images sound to fsck.erofs, seed S`.
 */
import { parseArgs } from "node:util";
import { withLab, type Lab } from "../lab/index.ts";
import { describeCounterexample, shrink } from "./check.ts";
import { compareImages, type RunState } from "./run.ts";

const DIFFERENCES_MAX = 10;
const PROGRESS_IMAGES = 50;

function write(line: string): void {
  process.stdout.write(`${line}\n`);
}

function numberOf(text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new Error(`${text ?? ""} is no count`);
}

function progress(count: number): (state: RunState) => void {
  const started = performance.now();
  let shown = 0;
  let differences = 0;
  return ({ done, differing, refused }) => {
    for (const { at, lines } of differing.slice(differences)) {
      write(`path ${at}:\n  ${lines.slice(0, 6).join("\n  ")}`);
    }
    differences = differing.length;
    if (done < count && done - shown < PROGRESS_IMAGES) return;
    shown = done;
    const rate = (1000 * done) / (performance.now() - started);
    const known = `${differences} differ, ${refused.length} refused by containerd`;
    write(`${done} of ${count} images, ${known}, ${rate.toFixed(1)} a second`);
  };
}

async function longRun(lab: Lab, seed: number, count: number, jobs: number): Promise<boolean> {
  const options = { seed, count, jobs, differencesMax: DIFFERENCES_MAX, onBatch: progress(count) };
  const { done, checked, differing, refused } = await compareImages(lab, options);
  for (const text of refused) write(`refused by containerd: ${text.slice(0, 600)}`);
  const [first] = differing;
  if (first !== undefined) {
    write(describeCounterexample(await shrink(lab, seed, String(first.at))));
  }
  const counts = `${done} images, ${differing.length} differences, ${refused.length} refused`;
  write(`${counts}, ${checked} metadata images sound to fsck.erofs, seed ${seed}`);
  return differing.length + refused.length === 0;
}

async function replay(lab: Lab, seed: number, path: string): Promise<boolean> {
  const found = await shrink(lab, seed, path);
  if (found.image === undefined) write(`seed ${seed}, path ${path}: equal`);
  else write(describeCounterexample(found));
  return found.image === undefined;
}

const { values } = parseArgs({
  options: {
    images: { type: "string" },
    seed: { type: "string" },
    path: { type: "string" },
    jobs: { type: "string" },
  },
});
// A seed is only a name of the run.
const seed = numberOf(values.seed, 1 + (Date.now() % 1_000_000));
const images = numberOf(values.images, 5000);
const jobs = numberOf(values.jobs, 2);
await withLab(async (lab) => {
  const isEqual =
    values.path === undefined
      ? await longRun(lab, seed, images, jobs)
      : await replay(lab, seed, values.path);
  process.exitCode = isEqual ? 0 : 1;
});
process.exit();
