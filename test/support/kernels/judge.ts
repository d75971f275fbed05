/** What a machine's results have to be, whatever its kernel; and the lines about them. */
import { MOUNT_MODES } from "../../../src/rootfs/index.ts";
import type { MachineRun } from "./machine.ts";
import type { MountResult, SelfTestResult, StepsResult } from "./results.ts";

function mountsOf(run: MachineRun): readonly MountResult[] {
  return run.results.filter((result) => result.kind === "mount");
}

function stepsOf(run: MachineRun): readonly StepsResult[] {
  return run.results.filter((result) => result.kind === "steps");
}

/** The mode that `--mode auto` takes. */
export function chosenMode(run: MachineRun): MountResult["mode"] {
  const mounted = mountsOf(run).find((result) => result.asked === "auto");
  return mounted?.mode ?? selfTestOf(run)?.mode;
}

function isBad(steps: StepsResult): boolean {
  return steps.impossible !== undefined || steps.wrong > 0;
}

function mountFaults(result: MountResult, bad: ReadonlySet<string>): string[] {
  const what = `mount --mode ${result.asked}`;
  const faults: string[] = [];
  const { asked, mode } = result;
  if (mode === undefined) {
    if (asked === "auto") faults.push(`${what}: not mounted: ${result.reason}`);
    else if (!bad.has(asked))
      faults.push(`${what}: refused a mode without fault: ${result.reason}`);
  } else {
    if (asked !== "auto" && mode !== asked) faults.push(`${what}: mounted in ${mode} mode`);
    if (asked !== "auto" && bad.has(mode)) faults.push(`${what}: gives wrong bytes here`);
    if (result.endedBy === "itself") faults.push(`${what}: ended early`);
  }
  if (result.differences.length > 0) {
    faults.push(`${what}: differs: ${result.differences.slice(0, 3).join("; ")}`);
  }
  if (result.left.length > 0) faults.push(`${what}: left behind: ${result.left.join(", ")}`);
  return faults;
}

/** Everything that is wrong, in words; empty when the machine showed what it has to. */
export function faultsOf(run: MachineRun): readonly string[] {
  const faults = run.fault === undefined ? [] : [run.fault];
  for (const result of run.results) if (result.kind === "failed") faults.push(result.text);
  const steps = stepsOf(run);
  const bad = new Set<string>(steps.filter(isBad).map((result) => result.mode));
  for (const result of mountsOf(run)) faults.push(...mountFaults(result, bad));
  const chosen = chosenMode(run);
  if (chosen === undefined) return faults;
  if (bad.has(chosen)) faults.push(`chose ${chosen} mode, which gives wrong bytes here`);
  // No mode before the chosen one may be without fault, as far as they were tried.
  const before = MOUNT_MODES.slice(0, MOUNT_MODES.indexOf(chosen));
  for (const { mode } of steps.filter((result) => before.includes(result.mode) && !isBad(result))) {
    faults.push(`--mode auto passed over ${mode} mode, which shows no fault`);
  }
  return faults;
}

function stepsLine(result: StepsResult): string {
  const { mode, runs, failed, killed, wrong, impossible, seconds } = result;
  if (impossible !== undefined) return `steps in ${mode} mode: not possible (${impossible})`;
  const counts = `${runs} runs, ${failed} failed reads, ${killed} killed readers`;
  return `steps in ${mode} mode: ${counts}: ${wrong} left wrong bytes (${seconds} s)`;
}

function mountLine(result: MountResult): string {
  const { asked, mode, reason, endedBy, left, differences, seconds } = result;
  if (mode === undefined) return `mount --mode ${asked}: refused: ${reason} (${seconds} s)`;
  const equal = differences.length === 0 ? "equal" : `${differences.length} differences`;
  const gone = left.length === 0 ? "nothing left" : `left ${left.length}`;
  return `mount --mode ${asked}: ${mode} (${reason}); ${equal}; ${endedBy}: ${gone} (${seconds} s)`;
}

function selfTestOf(run: MachineRun): SelfTestResult | undefined {
  return run.results.find((result) => result.kind === "self-test");
}

/** One line for each result that says something. */
export function describe(result: MachineRun["results"][number]): string | undefined {
  if (result.kind === "mount") return mountLine(result);
  if (result.kind === "self-test") return `self-test: ${result.mode} (${result.reason})`;
  if (result.kind === "steps") return stepsLine(result);
  if (result.kind === "failed") return `failed: ${result.text}`;
  return undefined;
}
