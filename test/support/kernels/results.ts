/** What a virtual machine says, one line each on its console: `RESULT {"kind":…}`. */
import type { MountMode } from "../../../src/rootfs/index.ts";

export type ModeAsked = MountMode | "auto";

export interface KernelResult {
  readonly kind: "kernel";
  readonly release: string;
}

/** The start-up self-test alone, with time enough for an emulated processor. */
export interface SelfTestResult {
  readonly kind: "self-test";
  readonly mode: MountMode;
  readonly reason: string;
  readonly seconds: number;
}

/** `faasnet mount --mode ASKED`. */
export interface MountResult {
  readonly kind: "mount";
  readonly asked: ModeAsked;
  /** The mode that it says; undefined when it refused. */
  readonly mode: MountMode | undefined;
  /** As printed: why the mode, or why not. */
  readonly reason: string;
  /** Between the walk of the mount and of the unpacked layers. */
  readonly differences: readonly string[];
  /** Mounts, loop devices and processes that are there after its end. */
  readonly left: readonly string[];
  readonly endedBy: "SIGINT" | "SIGKILL" | "itself";
  readonly seconds: number;
}

/** Readers that fail or are killed; `impossible` where the kernel cannot mount in that mode. */
export interface StepsResult {
  readonly kind: "steps";
  readonly mode: MountMode;
  readonly impossible: string | undefined;
  readonly runs: number;
  readonly failed: number;
  readonly killed: number;
  readonly wrong: number;
  readonly examples: readonly string[];
  readonly seconds: number;
}

export interface EndResult {
  readonly kind: "end";
  readonly status: number;
}

export interface FailedResult {
  readonly kind: "failed";
  readonly text: string;
}

export type Result =
  KernelResult | SelfTestResult | MountResult | StepsResult | EndResult | FailedResult;

const MARK = "RESULT ";

export function formatResult(result: Result): string {
  return `${MARK}${JSON.stringify(result)}\n`;
}

/** Undefined for a line of the kernel or of a program. */
export function parseResult(line: string): Result | undefined {
  const at = line.indexOf(MARK);
  if (at < 0) return undefined;
  try {
    return JSON.parse(line.slice(at + MARK.length)) as Result;
  } catch {
    return { kind: "failed", text: `not understood: ${line}` };
  }
}
