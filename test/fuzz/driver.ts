/** Runs targets in threads of their own, under a watchdog that names the run which hangs. */
import { Worker } from "node:worker_threads";
import { SHARED } from "./fuzz-thread.ts";
import type { ThreadMessage, ThreadOrder } from "./fuzz-thread.ts";
import type { Finding } from "./loop.ts";

/** A run that takes longer, in milliseconds, never ends. */
export const HANG_MS_DEFAULT = 20_000;
const WATCH_MS = 100;
/** JavaScript heap of a thread, in MiB; beyond it the thread dies, which is a finding. */
const THREAD_HEAP_MIB = 1024;
/** After these a target is not run further. */
const FINDINGS_MAX = 10;
const THREAD_FILE = new URL("fuzz-thread.js", import.meta.url);

export interface FuzzOptions {
  /** URL of a module that exports TARGETS. */
  readonly module: string;
  readonly target: string;
  readonly seed: number;
  readonly first: number;
  readonly end: number;
  /** No further run is begun after this time. */
  readonly seconds?: number;
  readonly hangMs?: number;
}

export interface FuzzReport {
  readonly target: string;
  readonly runs: number;
  readonly accepted: number;
  readonly seconds: number;
  readonly findings: readonly Finding[];
}

export async function fuzz(options: FuzzOptions): Promise<FuzzReport> {
  const findings: Finding[] = [];
  const startMs = performance.now();
  const elapsed = (): number => (performance.now() - startMs) / 1000;
  let runs = 0;
  let accepted = 0;
  let first = options.first;
  while (first < options.end && findings.length < FINDINGS_MAX) {
    const left = (options.seconds ?? Infinity) - elapsed();
    if (left <= 0) break;
    const part = await runThread({ ...options, first, seconds: left });
    findings.push(...part.findings);
    runs += part.runs;
    accepted += part.accepted;
    if (!part.hasDied) break;
    first = part.lastRun + 1;
  }
  return { target: options.target, runs, accepted, seconds: elapsed(), findings };
}

interface Part {
  readonly findings: readonly Finding[];
  readonly runs: number;
  readonly accepted: number;
  /** The last run begun. */
  readonly lastRun: number;
  /** Its last run ended the thread. */
  readonly hasDied: boolean;
}

async function runThread(options: FuzzOptions & { readonly seconds: number }): Promise<Part> {
  const shared = new SharedArrayBuffer(4 * SHARED.count);
  const numbers = new Int32Array(shared);
  numbers[SHARED.run] = options.first;
  const { module, target, seed, first, end, seconds } = options;
  const order: ThreadOrder = { module, target, seed, first, end, seconds, shared };
  const thread = new Worker(THREAD_FILE, {
    workerData: order,
    resourceLimits: { maxOldGenerationSizeMb: THREAD_HEAP_MIB },
  });
  const findings: Finding[] = [];
  const lastRun = (): number => Atomics.load(numbers, SHARED.run);
  const hasDied = await new Promise<boolean>((resolve) => {
    const finish = (died: boolean): void => {
      clearInterval(watchdog);
      thread.removeAllListeners();
      // How the thread ends is known by now; without a listener an error would end this process.
      thread.on("error", () => undefined);
      resolve(died);
    };
    const watchdog = watch(lastRun, options.hangMs ?? HANG_MS_DEFAULT, () => {
      findings.push({ run: lastRun(), kind: "hang", text: "the run does not end" });
      finish(true);
    });
    thread.on("message", (message: ThreadMessage) => {
      if (message === "done") finish(false);
      else if (findings.length < FINDINGS_MAX) findings.push(message);
      if (findings.length >= FINDINGS_MAX) finish(false);
    });
    thread.on("error", (error) => {
      findings.push({ run: lastRun(), kind: "crash", text: error.stack ?? error.message });
      finish(true);
    });
    thread.on("exit", (code) => {
      if (code !== 0) {
        findings.push({ run: lastRun(), kind: "crash", text: `thread ended with ${code}` });
      }
      finish(code !== 0);
    });
  });
  await thread.terminate();
  const dead = hasDied ? 1 : 0;
  const runs = Atomics.load(numbers, SHARED.runs) + dead;
  const accepted = Atomics.load(numbers, SHARED.accepted);
  return { findings, runs, accepted, lastRun: lastRun(), hasDied };
}

function watch(lastRun: () => number, hangMs: number, onHang: () => void): NodeJS.Timeout {
  let seen = lastRun();
  let seenMs = performance.now();
  return setInterval(() => {
    const nowMs = performance.now();
    if (lastRun() !== seen) {
      seen = lastRun();
      seenMs = nowMs;
    } else if (nowMs - seenMs > hangMs) onHang();
  }, WATCH_MS);
}
