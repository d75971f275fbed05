/** Which process serves which folder, so that `faasnet umount` finds it: STATE/mounts/. */
import { createHash } from "node:crypto";
import { mkdir, realpath, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { DaemonError, systemErrorName } from "../base/errors.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import { unmount } from "../base/native.ts";
import { readJsonFile, writeJsonFile } from "./json-file.ts";

const UNMOUNT_POLL_MS = 50;

const recordSchema = z.strictObject({ pid: z.int().min(2), target: z.string() });
export type MountRecord = z.infer<typeof recordSchema>;

function recordPath(state: string, target: string): string {
  const name = createHash("sha256").update(target).digest("hex").slice(0, 32);
  return join(state, "mounts", `${name}.json`);
}

export async function rememberMount(state: string, record: MountRecord): Promise<void> {
  await mkdir(join(state, "mounts"), { recursive: true, mode: 0o700 });
  await writeJsonFile(recordPath(state, record.target), record);
}

export async function forgetMount(state: string, target: string): Promise<void> {
  await rm(recordPath(state, target), { force: true });
}

/**
 * Asks the process that serves the folder to end and waits for it; where it has died, unmounts
 * what it left. `not-found` when the folder is no mount of ours.
 */
export async function unmountFolder(
  request: { readonly target: string; readonly state: string },
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const target = await realpath(request.target);
  const record = recordSchema.safeParse(await readJsonFile(recordPath(request.state, target)));
  if (!record.success) {
    throw new DaemonError(
      "not-found",
      `${target} is not a mount of faasnet with the state folder ${request.state}`,
    );
  }
  const { pid } = record.data;
  while (sendTerm(pid)) {
    // It forgets the record when the folder is free.
    if ((await readJsonFile(recordPath(request.state, target))) === undefined) return;
    await systemClock.sleep(UNMOUNT_POLL_MS, { signal });
  }
  if (mountAt(await readMountInfo(), target) !== undefined) await unmount(target, { detach: true });
  await forgetMount(request.state, target);
}

/** False when the process is gone. A second SIGTERM would end it the hard way: only the first. */
const told = new Set<number>();
function sendTerm(pid: number): boolean {
  try {
    process.kill(pid, told.has(pid) ? 0 : "SIGTERM");
    told.add(pid);
    return true;
  } catch (error) {
    if (systemErrorName(error) === "ESRCH") return false;
    throw error;
  }
}
