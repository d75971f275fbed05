/** `scripts/kernels`: the machines of the kernels named, and a line of figures. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { packageRoot } from "../../../src/base/package-root.ts";
import { MOUNT_MODES } from "../../../src/rootfs/index.ts";
import { makeDisk } from "./disk.ts";
import { chosenMode, describe, faultsOf } from "./judge.ts";
import { runMachine } from "./machine.ts";
import type { MachineRun } from "./machine.ts";
import { READ_KINDS } from "./page-reader.ts";
import { FAULTS, PAGE_BYTES, runReadSteps } from "./read-steps.ts";
import type { Step } from "./read-steps.ts";

const HOST_FILE_BYTES = 3 * (1 << 20) + 1000;
const PROGRESS_STEPS = 500;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    jobs: { type: "string", default: "2" },
    stride: { type: "string", default: "160" },
    limit: { type: "string", default: "600" },
    host: { type: "boolean", default: false },
  },
});

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Every page, fault and kind of reading, in every mode, on the kernel of this machine. */
function* everyStep(): Generator<Step> {
  for (let page = 0; page < Math.ceil(HOST_FILE_BYTES / PAGE_BYTES); page += 1) {
    for (const fault of FAULTS) for (const kind of READ_KINDS) yield { kind, fault, page };
  }
}

async function runHost(): Promise<number> {
  let [runs, wrong] = [0, 0];
  for (const mode of MOUNT_MODES) {
    const totals = await runReadSteps({
      mode,
      fileBytes: HOST_FILE_BYTES,
      steps: everyStep(),
      onProgress: (now) => {
        if (now.runs % PROGRESS_STEPS === 0) print(`host, ${mode}: ${now.runs} runs`);
      },
    });
    const { failed, killed } = totals;
    print(
      `host, ${mode}: ${totals.runs} runs, ${failed} failed, ${killed} killed: ${totals.wrong} wrong`,
    );
    for (const example of totals.examples) print(`  ${example}`);
    runs += totals.runs;
    wrong += totals.wrong;
  }
  print(`host: ${runs} runs, ${wrong} wrong`);
  return wrong === 0 ? 0 : 1;
}

async function runOne(kernel: string, disk: string, signal: AbortSignal): Promise<MachineRun> {
  return runMachine({
    kernel,
    disk,
    logFile: join(packageRoot(), ".lab", "log", `kernel-${kernel}.txt`),
    parameters: { stride: values.stride },
    limitMs: Number(values.limit) * 1000,
    signal,
    onResult: (result) => {
      const line = describe(result);
      if (line !== undefined) print(`${kernel}: ${line}`);
    },
  });
}

async function runMachines(kernels: readonly string[], signal: AbortSignal): Promise<number> {
  const folder = await mkdtemp(join(tmpdir(), "faasnet-v-"));
  try {
    const disk = join(folder, "disk.img");
    await makeDisk(folder, disk);
    const waiting = [...kernels];
    let faults = 0;
    const summary: string[] = [];
    const work = async (): Promise<void> => {
      for (let kernel = waiting.shift(); kernel !== undefined; kernel = waiting.shift()) {
        const run = await runOne(kernel, disk, signal);
        const found = faultsOf(run);
        faults += found.length;
        for (const fault of found) print(`${kernel}: FAULT: ${fault}`);
        const mode = chosenMode(run) ?? "none";
        summary.push(`${run.version} ${mode}`);
        print(`${kernel}: ${run.version}: ${mode} mode, ${found.length} faults, ${run.seconds} s`);
      }
    };
    await Promise.all(Array.from({ length: Number(values.jobs) }, work));
    print(`${kernels.length} kernels, ${faults} faults: ${summary.join(", ")}`);
    return faults === 0 ? 0 : 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => {
    stop.abort();
  });
}
process.exitCode = values.host ? await runHost() : await runMachines(positionals, stop.signal);
