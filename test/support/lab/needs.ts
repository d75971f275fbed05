/**
 * What a test needs of the machine. Where something is missing the test is skipped and says what;
 * in CI it fails instead, because there scripts/setup has installed everything.
 */
import type { Context } from "mocha";
import { statSync } from "node:fs";
import {
  containerdBinaries,
  findCommand,
  isLabImageBuilt,
  nerdctlPath,
  programPath,
  type ContainerdLine,
  type LabImageName,
} from "./paths.ts";

export interface Needs {
  readonly root?: boolean;
  readonly fuse?: boolean;
  /** bin/faasnet and its build. */
  readonly program?: boolean;
  readonly commands?: readonly string[];
  readonly files?: readonly string[];
  readonly containerd?: readonly ContainerdLine[];
  readonly images?: readonly LabImageName[];
  /** Only where Go is on the machine can it be there: else skipped in CI too. */
  readonly nerdctl?: boolean;
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** What is missing, in words; empty when nothing is. */
export function missing(what: Needs): readonly string[] {
  const absent: string[] = [];
  if (what.root === true && process.getuid?.() !== 0) absent.push("root");
  if (what.fuse === true && !exists("/dev/fuse")) absent.push("/dev/fuse");
  if (what.program === true && !exists(programPath)) absent.push("bin/faasnet (npm run build)");
  for (const command of what.commands ?? []) {
    if (findCommand(command) === undefined) absent.push(`the command ${command}`);
  }
  for (const file of what.files ?? []) if (!exists(file)) absent.push(file);
  for (const line of what.containerd ?? []) {
    if (containerdBinaries(line) === undefined) absent.push(`containerd ${line} (scripts/setup)`);
  }
  for (const image of what.images ?? []) {
    if (!isLabImageBuilt(image)) absent.push(`the image ${image} (scripts/lab-images)`);
  }
  if (what.nerdctl === true && !exists(nerdctlPath)) absent.push("nerdctl (scripts/setup)");
  return absent;
}

/** Call first in a `before` hook: `needs(this, { root: true, images: ["pysci"] })`. */
export function needs(context: Context, what: Needs): void {
  const absent = missing(what);
  if (absent.length === 0) return;
  const text = `missing: ${absent.join(", ")}`;
  const buildable = what.nerdctl !== true || findCommand("go") !== undefined;
  if (process.env["CI"] === "true" && buildable) throw new Error(text);
  // mocha's reporter shows a skipped test without its reason.
  process.stderr.write(`    skipped, ${text}\n`);
  context.skip();
}
