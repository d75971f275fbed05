/**
 * Which way of mounting this kernel does right, found by trying. Some kernels fill a read of a
 * file-backed EROFS that was cut short (an error after a good first part, a reader killed) with
 * zeros and keep them in the page cache; a version number does not tell which (fixed upstream by
 * eade54040384). So: a tiny image over a file that fails and stalls on order, in each mode.
 */
import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { release } from "node:os";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import { unmount } from "../base/native.ts";
import { Scope } from "../base/scope.ts";
import { defaultDirectory, ErofsInodeInput, FILE_TYPE, writeErofs } from "../erofs/index.ts";
import { mountErofsFiles, mountErofsLoops } from "./erofs-mount.ts";
import { CHECKED_BYTES, findFault } from "./mode-check.ts";
import { MOUNT_MODES } from "./mount-state.ts";
import type { MountMode } from "./mount-state.ts";
import { EROFS_FS_TYPE, KEEPER_FS_TYPE } from "./mount-table.ts";
import { SelfTestDevice } from "./self-test-device.ts";

/** Of one mode. It takes 0.3 s; a machine may be a hundred times busier than that. */
export const SELF_TEST_MS_MAX = 60_000;
/** Changes when the test does: an older verdict is then not believed. */
const SELF_TEST_VERSION = 3;

export interface SelfTestOptions {
  /** For the mounts and the remembered verdict. */
  readonly stateDir: string;
  /** On the disk that will hold the metadata: whether that one can be mounted is part of it. */
  readonly scratchDir: string;
  /** The only mode wanted: it is refused when it fails. Without it, the first that passes. */
  readonly forced?: MountMode | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export interface SelfTestVerdict {
  readonly mode: MountMode;
  /** For people: why this one and not one before it. */
  readonly reason: string;
}

/** Answered from the state folder when this kernel has been tested since it booted. */
export async function selfTest(options: SelfTestOptions): Promise<SelfTestVerdict> {
  const { forced = "auto" } = options;
  if (forced === "fuse") return { mode: forced, reason: "forced by the configuration" };
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const identity = `${SELF_TEST_VERSION} ${release()} ${bootId} ${options.scratchDir} ${forced}`;
  const path = join(options.stateDir, "self-test.json");
  const remembered = await readVerdict(path, identity);
  if (remembered !== undefined) return remembered;
  const startMs = options.clock.nowMs();
  const { isFinal, ...verdict } = await runSelfTest(options);
  const tookMs = Math.round(options.clock.nowMs() - startMs);
  options.log.info("self-test", { ...verdict, kernel: release(), tookMs });
  if (!isFinal) return verdict;
  await writeFile(`${path}.new`, JSON.stringify({ identity, ...verdict }), { mode: 0o600 });
  await rename(`${path}.new`, path);
  return verdict;
}

async function readVerdict(path: string, identity: string): Promise<SelfTestVerdict | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    const known = value as Partial<Record<"identity" | keyof SelfTestVerdict, unknown>>;
    if (known.identity !== identity || typeof known.reason !== "string") return undefined;
    const mode = MOUNT_MODES.find((one) => one === known.mode);
    return mode === undefined ? undefined : { mode, reason: known.reason };
  } catch {
    return undefined;
  }
}

type TestedMode = Exclude<MountMode, "fuse">;

/** Not final when a mode was out of time: a busy machine is not to be slow until it reboots. */
async function runSelfTest(
  options: SelfTestOptions,
): Promise<SelfTestVerdict & { readonly isFinal: boolean }> {
  const { forced } = options;
  const scope = new Scope();
  try {
    const metadataPath = join(options.scratchDir, `self-test-${process.pid}.erofs`);
    scope.defer(() => rm(metadataPath, { force: true }));
    await writeFile(metadataPath, testImage());
    const modes: readonly TestedMode[] =
      forced === "erofs" || forced === "loop" ? [forced] : ["erofs", "loop"];
    const reasons: string[] = forced === undefined ? [] : ["forced by the configuration"];
    let isFinal = true;
    for (const mode of modes) {
      const { fault, isOutOfTime } = await testMode(mode, metadataPath, options);
      if (fault === undefined) {
        reasons.push(reasons.length === 0 ? "the self-test passed" : "its self-test passed");
        return { mode, reason: reasons.join("; "), isFinal };
      }
      if (isOutOfTime) isFinal = false;
      reasons.push(`${mode} mode: ${fault}`);
    }
    const reason = reasons.join("; ");
    if (forced === undefined) return { mode: "fuse", reason, isFinal };
    throw new DaemonError("failed-precondition", `mode "auto" would avoid it: ${reason}`);
  } finally {
    await scope[Symbol.asyncDispose]();
  }
}

/** One file that is the whole device. */
function testImage(): Buffer {
  const root = new ErofsInodeInput(defaultDirectory());
  const attributes = { ...defaultDirectory(), mode: FILE_TYPE.regular | 0o400 };
  const extent = { fileOffset: 0, length: CHECKED_BYTES, device: 1, deviceOffset: 0 };
  const file = new ErofsInodeInput(attributes, {
    data: { kind: "extents", size: CHECKED_BYTES, extents: [extent] },
  });
  root.entries?.set("file", file);
  return writeErofs(root, { devices: [{ bytes: CHECKED_BYTES }] });
}

interface ModeOutcome {
  /** What is wrong with the mode, or undefined. */
  readonly fault: string | undefined;
  readonly isOutOfTime: boolean;
}

async function testMode(
  mode: TestedMode,
  metadataPath: string,
  options: SelfTestOptions,
): Promise<ModeOutcome> {
  const folder = join(options.stateDir, "self-test");
  const target = join(folder, mode);
  const limit = new AbortController();
  const scope = new Scope();
  scope.defer(() => rm(folder, { recursive: true, force: true }));
  scope.defer(() => clearStale(folder));
  scope.defer(
    options.clock.timer(SELF_TEST_MS_MAX, () => {
      limit.abort(new DaemonError("deadline-exceeded", "the self-test took too long"));
    }),
  );
  try {
    await clearStale(folder);
    await mkdir(target, { recursive: true, mode: 0o700 });
    const signal = AbortSignal.any([options.signal, limit.signal]);
    const mountpoint = join(folder, "l");
    const device = scope.use(
      await SelfTestDevice.start({ mountpoint, size: CHECKED_BYTES, signal }),
    );
    const request = { metadataPath, devicePaths: [device.path], target };
    await (mode === "erofs" ? mountErofsFiles(request) : mountErofsLoops(request));
    scope.defer(() => unmount(target, { detach: true }));
    const path = join(target, "file");
    device.mounted(path);
    const file = await open(path, "r");
    scope.defer(() => file.close());
    const fault = await findFault(file, device);
    // Out of time, the device was killed: whatever was read then says nothing.
    signal.throwIfAborted();
    return { fault, isOutOfTime: false };
  } catch (error) {
    if (options.signal.aborted) throw error;
    if (!limit.signal.aborted) return { fault: errorMessage(error), isOutOfTime: false };
    return { fault: errorMessage(limit.signal.reason), isOutOfTime: true };
  } finally {
    await scope[Symbol.asyncDispose]();
  }
}

/** Mounts that a self-test left or still has; lazily, since their server may be gone. */
async function clearStale(folder: string): Promise<void> {
  for (const name of ["erofs", "loop", "l"]) {
    const path = join(folder, name);
    const fsType = mountAt(await readMountInfo(), path)?.fsType;
    if (fsType === EROFS_FS_TYPE || fsType === KEEPER_FS_TYPE) {
      await unmount(path, { detach: true });
    }
  }
}
