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
}

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** What is missing, in words; empty when nothing is. */
export function missing(needs: Needs): readonly string[] {
  const absent: string[] = [];
  if (needs.root === true && process.getuid?.() !== 0) absent.push("root");
  if (needs.fuse === true && !exists("/dev/fuse")) absent.push("/dev/fuse");
  if (needs.program === true && !exists(programPath)) absent.push("bin/faasnet (npm run build)");
  for (const command of needs.commands ?? []) {
    if (findCommand(command) === undefined) absent.push(`the command ${command}`);
  }
  for (const file of needs.files ?? []) if (!exists(file)) absent.push(file);
  for (const line of needs.containerd ?? []) {
    if (containerdBinaries(line) === undefined) absent.push(`containerd ${line} (scripts/setup)`);
  }
  for (const image of needs.images ?? []) {
    if (!isLabImageBuilt(image)) absent.push(`the image ${image} (scripts/lab-images)`);
  }
  return absent;
}

/** Call first in a `before` hook: `needs(this, { root: true, images: ["pysci"] })`. */
export function needs(context: Context, what: Needs): void {
  const absent = missing(what);
  if (absent.length === 0) return;
  const text = `missing: ${absent.join(", ")}`;
  if (process.env["CI"] === "true") throw new Error(text);
  // mocha's reporter shows a skipped test without its reason.
  process.stderr.write(`    skipped, ${text}\n`);
  context.skip();
}
