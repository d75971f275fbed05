/** The long run: scripts/equality. Its last line is `N images, N differences, seed S`. */
import { parseArgs } from "node:util";
import { describeCounterexample, EqualitySession, imagesOf, shrink } from "./check.ts";

/** What one containerd and one keeper see before others take over. */
const SESSION_IMAGES = 250;
const BATCH = 50;
/** After so many the run ends: they are mostly the same one. */
const DIFFERENCES_MAX = 10;

function write(line: string): void {
  process.stdout.write(`${line}\n`);
}

function numberOf(text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new Error(`${text ?? ""} is no count`);
}

async function longRun(seed: number, count: number): Promise<number> {
  const images = imagesOf(seed, count);
  const started = performance.now();
  let differing = 0;
  let done = 0;
  let refused = 0;
  while (done < count && differing < DIFFERENCES_MAX) {
    await using session = await EqualitySession.start();
    const sessionEnd = Math.min(count, done + SESSION_IMAGES);
    while (done < sessionEnd) {
      const found = await session.differences(
        images.slice(done, Math.min(sessionEnd, done + BATCH)),
      );
      for (const [at, lines] of found.entries()) {
        if (lines.length === 0) continue;
        differing += 1;
        write(`path ${done + at}:\n  ${lines.slice(0, 6).join("\n  ")}`);
        if (differing === 1) write(describeCounterexample(await shrink(seed, String(done + at))));
      }
      done += found.length;
      const rate = done / ((performance.now() - started) / 1000);
      const known = `${differing} differ, ${refused + session.refused.length} refused`;
      write(`${done} of ${count} images, ${known} by containerd, ${rate.toFixed(1)} a second`);
    }
    refused += session.refused.length;
    for (const text of session.refused) write(`refused by containerd: ${text.slice(0, 600)}`);
  }
  write(`${done} images, ${differing} differences, seed ${seed}`);
  return differing;
}

async function replay(seed: number, path: string): Promise<number> {
  const found = await shrink(seed, path);
  if (found.image === undefined) write(`seed ${seed}, path ${path}: equal`);
  else write(describeCounterexample(found));
  return found.image === undefined ? 0 : 1;
}

const { values } = parseArgs({
  options: { images: { type: "string" }, seed: { type: "string" }, path: { type: "string" } },
});
// A seed is only a name of the run.
const seed = numberOf(values.seed, 1 + (Date.now() % 1_000_000));
const failures =
  values.path === undefined
    ? await longRun(seed, numberOf(values.images, 5000))
    : await replay(seed, values.path);
process.exit(failures === 0 ? 0 : 1);
