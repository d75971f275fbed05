/**
 * `find` and `tar` over the whole tree of an image, page-cold and warm, in every mode and on ext4:
 * node dist/bench/file-trees.js [--quick]. Everything is local unless the row says "from registry".
 * find reads the size of each entry (so every inode is asked for).
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  Containerd,
  Registry,
  SNAPSHOTTER,
  dropCaches,
  imageFacts,
  mountView,
  run,
  startStack,
  withLab,
  type Lab,
  type MountMode,
} from "../test/support/lab/index.ts";

const IMAGE = "pysci";
const MODES: readonly MountMode[] = ["erofs", "loop", "fuse"];
const FIND = `find "$1" -xdev -printf '%s\\n' > /dev/null`;
const TAR = `tar -C "$1" --one-file-system -cf - . | cat > /dev/null`;

interface Figures {
  readonly where: string;
  readonly findCold: number;
  readonly findWarm: number;
  readonly tarCold: number;
  readonly tarWarm: number;
  /** tar with nothing cached; undefined where everything always is. */
  readonly tarFromRegistry: number | undefined;
  readonly memory: number | undefined;
}

const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

async function seconds(script: string, folder: string): Promise<number> {
  return (await run("sh", ["-ec", script, "sh", folder], { timeoutMs: 300_000 })).seconds;
}

async function repeat(times: number, cold: boolean, work: () => Promise<number>): Promise<number> {
  const taken: number[] = [];
  if (!cold) await work();
  for (let round = 0; round < times; round += 1) {
    if (cold) {
      await dropCaches();
      // The tools themselves are not what is cold.
      await run("sh", ["-c", "find --version; tar --version; cat --version"]);
    }
    taken.push(await work());
  }
  return median(taken);
}

async function measure(where: string, folder: string, rounds: number): Promise<Figures> {
  const find = (): Promise<number> => seconds(FIND, folder);
  const tar = (): Promise<number> => seconds(TAR, folder);
  return {
    where,
    findCold: await repeat(rounds, true, find),
    findWarm: await repeat(rounds, false, find),
    tarCold: await repeat(rounds, true, tar),
    tarWarm: await repeat(rounds, false, tar),
    tarFromRegistry: undefined,
    memory: undefined,
  };
}

/** A plain copy of the tree on this machine's disk. */
async function onDisk(lab: Lab, rounds: number): Promise<Figures> {
  const registry = await Registry.start(lab);
  const containerd = await Containerd.start(lab, { line: "2" });
  await containerd.pull(registry.reference(IMAGE));
  const top = (await imageFacts(registry, IMAGE)).chainIds.at(-1) ?? "";
  const view = await mountView(lab, containerd, top, "overlayfs");
  const copy = lab.path("copy");
  await mkdir(copy);
  await run("cp", ["-a", join(view, "."), copy]);
  const type = (await run("stat", ["-f", "-c", "%T", copy])).stdout.trim();
  const entries = (await run("sh", ["-c", `find "$1" | wc -l`, "sh", copy])).stdout.trim();
  const bytes = (await run("du", ["-sb", copy])).stdout.split("\t")[0] ?? "";
  say(`${IMAGE}: ${entries} entries, ${(Number(bytes) / 1e6).toFixed(0)} MB`);
  const overlay = await measure("overlayfs", view, rounds);
  const figures = await measure(type.includes("ext") ? "ext4" : type, copy, rounds);
  printRow(overlay);
  return figures;
}

async function lazily(lab: Lab, mode: MountMode, rounds: number): Promise<Figures> {
  const { containerd, daemon, registry } = await startStack(lab, { mode });
  const reference = registry.reference(IMAGE);
  await containerd.pull(reference, { snapshotter: SNAPSHOTTER });
  await daemon.cacheClear();
  const top = (await imageFacts(registry, IMAGE)).chainIds.at(-1) ?? "";
  const folder = await mountView(lab, containerd, top, SNAPSHOTTER);
  await dropCaches();
  const tarFromRegistry = await seconds(TAR, folder);
  await daemon.cli(["fetch", reference, "--wait"]);
  const figures = await measure(mode, folder, rounds);
  return { ...figures, tarFromRegistry, memory: await daemon.pssBytes() };
}

const COLUMNS = ["", "find cold", "find warm", "tar cold", "tar warm", "tar from registry", "PSS"];
const WIDTHS = [10, 9, 9, 8, 8, 17, 8];

function printLine(cells: readonly string[]): void {
  const padded = cells.map((cell, at) => {
    const width = WIDTHS[at] ?? 0;
    return at === 0 ? cell.padEnd(width) : cell.padStart(width);
  });
  say(padded.join("  ").trimEnd());
}

function printRow(figures: Figures): void {
  const time = (value: number | undefined): string =>
    value === undefined ? "-" : `${value.toFixed(2)} s`;
  const { memory } = figures;
  printLine([
    figures.where,
    time(figures.findCold),
    time(figures.findWarm),
    time(figures.tarCold),
    time(figures.tarWarm),
    time(figures.tarFromRegistry),
    memory === undefined ? "-" : `${(memory / 1e6).toFixed(0)} MB`,
  ]);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { quick: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const rounds = values.quick ? 2 : 5;
  say(`median of ${rounds}; node dist/bench/file-trees.js${values.quick ? " --quick" : ""}`);
  await withLab(async (lab) => {
    printLine(COLUMNS);
    printRow(await onDisk(lab, rounds));
  });
  for (const mode of MODES) {
    await withLab(async (lab) => {
      printRow(await lazily(lab, mode, rounds));
    });
  }
}

await main();
