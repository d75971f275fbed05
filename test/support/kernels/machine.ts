/** One virtual machine: QEMU without KVM, a kernel, the disk as it was made; ended by a limit. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { packageRoot } from "../../../src/base/package-root.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { parseResult } from "./results.ts";
import type { Result } from "./results.ts";

/** What scripts/setup unpacks. */
export const qemuProgram = join(packageRoot(), ".lab", "qemu", "bin", "qemu-system-x86_64");
const MEMORY = "1G";
export const MACHINE_MS_MAX = 300_000;

export interface MachineOptions {
  /** A folder of .lab/kernels. */
  readonly kernel: string;
  readonly disk: string;
  /** Everything that the machine says. */
  readonly logFile: string;
  /** `faasnet.NAME=VALUE` of the guest. */
  readonly parameters?: Readonly<Record<string, string>>;
  readonly onResult?: (result: Result) => void;
  readonly limitMs?: number;
  readonly signal?: AbortSignal;
}

export interface MachineRun {
  readonly kernel: string;
  readonly version: string;
  readonly results: readonly Result[];
  readonly seconds: number;
  /** Why it ended early, or undefined. */
  readonly fault: string | undefined;
}

export function kernelFolder(kernel: string): string {
  return join(packageRoot(), ".lab", "kernels", kernel);
}

export async function runMachine(options: MachineOptions): Promise<MachineRun> {
  const startMs = systemClock.nowMs();
  const folder = kernelFolder(options.kernel);
  const version = (await readFile(join(folder, "version"), "utf8")).trim();
  const child = spawn(qemuProgram, qemuArguments(folder, options), {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const stop = (): void => void child.kill("SIGKILL");
  process.once("exit", stop);
  options.signal?.addEventListener("abort", stop, { once: true });
  const limitMs = options.limitMs ?? MACHINE_MS_MAX;
  let fault: string | undefined;
  const cancel = systemClock.timer(limitMs, () => {
    fault = `not finished after ${limitMs / 1000} s`;
    stop();
  });
  const log = createWriteStream(options.logFile);
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  const results: Result[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    const result = parseResult(line);
    if (result === undefined) return;
    results.push(result);
    options.onResult?.(result);
  });
  try {
    await once(child, "close");
  } finally {
    cancel();
    log.end();
    process.off("exit", stop);
    options.signal?.removeEventListener("abort", stop);
  }
  if (fault === undefined && results.at(-1)?.kind !== "end") fault = "ended before its end";
  const seconds = Math.round((systemClock.nowMs() - startMs) / 100) / 10;
  return { kernel: options.kernel, version, results, seconds, fault };
}

function qemuArguments(folder: string, options: MachineOptions): string[] {
  const parameters = Object.entries(options.parameters ?? {}).map(
    ([name, value]) => `faasnet.${name}=${value}`,
  );
  const line = ["console=ttyS0", "panic=-1", "quiet", "no_timer_check", ...parameters];
  return [
    ...["-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY, "-smp", "2"],
    ...["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-net", "none"],
    ...["-kernel", join(folder, "vmlinuz"), "-initrd", join(folder, "initramfs")],
    // Writes go to a temporary file: all machines share the disk.
    ...["-drive", `file=${options.disk},format=raw,if=virtio,snapshot=on`],
    ...["-append", line.join(" ")],
  ];
}
