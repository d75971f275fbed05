/** What the kernel tests do in the virtual machine; it says everything by `RESULT` lines. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { release } from "node:os";
import { systemClock } from "../../../src/base/clock.ts";
import type { Clock } from "../../../src/base/clock.ts";
import { errorMessage } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { readMountInfo } from "../../../src/base/mountinfo.ts";
import { packageRoot } from "../../../src/base/package-root.ts";
import { MOUNT_MODES, selfTest } from "../../../src/rootfs/index.ts";
import type { MountMode } from "../../../src/rootfs/index.ts";
import { ended, never } from "../fuse/keeper-fixture.ts";
import { compareTrees, parseTree, walkTree } from "../lab/tree.ts";
import { READ_KINDS } from "./page-reader.ts";
import { FAULTS, PAGE_BYTES, runReadSteps } from "./read-steps.ts";
import type { Step } from "./read-steps.ts";
import { formatResult } from "./results.ts";
import type { ModeAsked, MountResult, Result } from "./results.ts";

const TARGET = "/mnt";
const STATE = "/run/faasnet";
const MOUNT_MS_MAX = 600_000;
const GONE_MS_MAX = 10_000;
const POLL_MS = 50;
const CLOCK_FACTOR = 10;
/** One and an eighth blocks, and a page that is not whole. */
const FILE_BYTES = (9 << 17) + 1000;

function say(result: Result): void {
  process.stdout.write(formatResult(result));
}

function secondsSince(startMs: number): number {
  return Math.round((systemClock.nowMs() - startMs) / 100) / 10;
}

/** Of the kernel's command line: `faasnet.NAME=VALUE`. */
async function argument(name: string, otherwise: string): Promise<string> {
  const line = await readFile("/proc/cmdline", "utf8");
  return new RegExp(`faasnet\\.${name}=(\\S+)`).exec(line)?.[1] ?? otherwise;
}

async function until(condition: () => Promise<boolean>, limitMs: number): Promise<boolean> {
  const endMs = systemClock.nowMs() + limitMs;
  while (!(await condition())) {
    if (systemClock.nowMs() > endMs) return false;
    await systemClock.sleep(POLL_MS, { signal: never });
  }
  return true;
}

// ---- the self-test -----------------------------------------------------------------------------

/** Its limit is meant for real processors. */
const slowClock: Clock = {
  nowMs: () => systemClock.nowMs(),
  wallNs: () => systemClock.wallNs(),
  sleep: (ms, wait) => systemClock.sleep(ms, wait),
  timer: (ms, callback) => systemClock.timer(ms * CLOCK_FACTOR, callback),
};

async function trySelfTest(): Promise<void> {
  const startMs = systemClock.nowMs();
  const scratchDir = "/var/lib/faasnet";
  await mkdir(scratchDir, { recursive: true });
  const options = { stateDir: STATE, scratchDir, clock: slowClock, log: silentLogger };
  const verdict = await selfTest({ ...options, signal: never });
  say({ kind: "self-test", ...verdict, seconds: secondsSince(startMs) });
}

// ---- faasnet mount -----------------------------------------------------------------------------

interface Started {
  readonly child: ChildProcess;
  readonly text: () => string;
}

function startMount(asked: ModeAsked): Started {
  const place = ["--root", "/var/lib/faasnet", "--state", STATE];
  const program = `${packageRoot()}/bin/faasnet`;
  const args = [program, "mount", ...place, "--mode", asked, "oci:/image/layout", TARGET];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
  }
  return { child, text: () => text };
}

async function attachedLoops(): Promise<string[]> {
  const names = (await readdir("/sys/block")).filter((name) => name.startsWith("loop"));
  const files = names.map(async (name) => {
    const path = `/sys/block/${name}/loop/backing_file`;
    return readFile(path, "utf8").then(
      (file) => [`/dev/${name} over ${file.trim()}`],
      () => [],
    );
  });
  return (await Promise.all(files)).flat();
}

async function ourProcesses(): Promise<string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = pids.map(async (pid) => {
    const text = await readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => "");
    return text.includes(STATE) ? [`process ${text.replaceAll("\0", " ")}`] : [];
  });
  return (await Promise.all(lines)).flat();
}

async function whatIsLeft(): Promise<string[]> {
  const mounts = (await readMountInfo())
    .filter(({ mountpoint }) => mountpoint === TARGET || mountpoint.startsWith(`${STATE}/`))
    .map(({ mountpoint, fsType }) => `${fsType} on ${mountpoint}`);
  return [...mounts, ...(await attachedLoops()), ...(await ourProcesses())];
}

async function tryMount(asked: ModeAsked, endBy: "SIGINT" | "SIGKILL"): Promise<MountResult> {
  const startMs = systemClock.nowMs();
  const { child, text } = startMount(asked);
  const line = /files, (\w+) mode \((.*)\)$/m;
  const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null;
  await until(() => Promise.resolve(isOver() || line.test(text())), MOUNT_MS_MAX);
  const [, word, reason = text().trim().slice(-1500)] = line.exec(text()) ?? [];
  const mode = MOUNT_MODES.find((known) => known === word);
  let differences: readonly string[] = [];
  if (mode !== undefined) {
    const expected = parseTree(await readFile("/image/expected", "utf8"));
    const actual = await walkTree(TARGET).catch((error: unknown) => errorMessage(error));
    if (typeof actual === "string") differences = [actual];
    else differences = compareTrees(expected, actual, { fuseNative: mode === "fuse" });
  }
  const endedBy = isOver() ? "itself" : endBy;
  child.kill(endBy);
  await ended(child);
  await until(async () => (await whatIsLeft()).length === 0, GONE_MS_MAX);
  const left = await whatIsLeft();
  const seconds = secondsSince(startMs);
  return { kind: "mount", asked, mode, reason, differences, left, endedBy, seconds };
}

// ---- steps -------------------------------------------------------------------------------------

/** Every `stride` pages, each time at another place and with the next kind of reading. */
function* stepsEvery(stride: number): Generator<Step> {
  const pages = Math.ceil(FILE_BYTES / PAGE_BYTES);
  let count = 0;
  for (let page = stride >> 1; page < pages; page += stride) {
    for (const fault of FAULTS) {
      yield { kind: READ_KINDS[count % READ_KINDS.length] ?? "read", fault, page };
      count += 1;
    }
  }
}

async function trySteps(mode: MountMode, stride: number): Promise<void> {
  const startMs = systemClock.nowMs();
  try {
    const totals = await runReadSteps({ mode, fileBytes: FILE_BYTES, steps: stepsEvery(stride) });
    const seconds = secondsSince(startMs);
    say({ kind: "steps", impossible: undefined, ...totals, seconds });
  } catch (error) {
    const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
    const none = { runs: 0, failed: 0, killed: 0, wrong: 0, examples: [] };
    const impossible = errorMessage(cause);
    say({ kind: "steps", mode, impossible, ...none, seconds: secondsSince(startMs) });
  }
}

async function main(): Promise<void> {
  say({ kind: "kernel", release: release() });
  await mkdir(STATE, { recursive: true });
  await trySelfTest();
  const stride = Number(await argument("stride", "24"));
  const asked = (await argument("modes", "auto,erofs,loop,fuse")).split(",");
  for (const mode of ["auto", ...MOUNT_MODES] as const) {
    if (asked.includes(mode)) say(await tryMount(mode, mode === "fuse" ? "SIGINT" : "SIGKILL"));
  }
  const steps = (await argument("steps", "erofs,loop,fuse")).split(",");
  for (const mode of MOUNT_MODES) if (steps.includes(mode)) await trySteps(mode, stride);
}

try {
  await main();
} catch (error) {
  say({ kind: "failed", text: errorMessage(error) });
  process.exitCode = 1;
}
