/**
 * Which way of mounting this kernel does right, found by trying. Some kernels fill a read of a
 * file-backed EROFS that was cut short (an error after a good first part, a reader killed) with
 * zeros and keep them in the page cache; a version number does not tell which (fixed upstream by
 * eade54040384). So: a tiny image over a file that fails and stalls on order, in each mode.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { release } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { raceAbort } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import { unmount } from "../base/native.ts";
import { Scope } from "../base/scope.ts";
import { defaultDirectory, ErofsInodeInput, FILE_TYPE, writeErofs } from "../erofs/index.ts";
import { mountErofsFiles, mountErofsLoops } from "./erofs-mount.ts";
import type { MountMode } from "./mount-state.ts";
import { EROFS_FS_TYPE, KEEPER_FS_TYPE } from "./mount-table.ts";

export const SELF_TEST_MS_MAX = 10_000;
/** Changes when the test does: an older verdict is then not believed. */
const SELF_TEST_VERSION = 1;
const DEVICE_BYTES = 8 * 1024 * 1024;
const BLOCK_BYTES = 512;
const PAGE_BYTES = 4096;
/** Around a fault: what is read before and after it. */
const BEFORE_BYTES = 512 * 1024;
const AFTER_BYTES = 256 * 1024;
/** Not at the edge of any request, so that each fault follows a good part. */
const FAILING_AT = [1_200_128, 2_400_256].map(toPage);
const STALLING_AT = [4_100_608, 6_200_320].map(toPage);

export interface SelfTestOptions {
  /** For the mounts and the remembered verdict. */
  readonly stateDir: string;
  /** On the disk that will hold the metadata: whether that one can be mounted is part of it. */
  readonly scratchDir: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export interface SelfTestVerdict {
  readonly mode: MountMode;
  /** For people: why this one and not one before it. */
  readonly reason: string;
}

function toPage(offset: number): number {
  return offset - (offset % PAGE_BYTES);
}

/** Answered from the state folder when this kernel has been tested since it booted. */
export async function selfTest(options: SelfTestOptions): Promise<SelfTestVerdict> {
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  const identity = `${SELF_TEST_VERSION} ${release()} ${bootId} ${options.scratchDir}`;
  const path = join(options.stateDir, "self-test.json");
  const remembered = await readVerdict(path, identity);
  if (remembered !== undefined) return remembered;
  const startMs = options.clock.nowMs();
  const verdict = await runSelfTest(options);
  const tookMs = Math.round(options.clock.nowMs() - startMs);
  options.log.info("self-test", { ...verdict, kernel: release(), tookMs });
  await writeFile(`${path}.new`, JSON.stringify({ identity, ...verdict }), { mode: 0o600 });
  await rename(`${path}.new`, path);
  return verdict;
}

async function readVerdict(path: string, identity: string): Promise<SelfTestVerdict | undefined> {
  try {
    const value: unknown = JSON.parse(await readFile(path, "utf8"));
    const known = value as Partial<Record<"identity" | keyof SelfTestVerdict, unknown>>;
    if (known.identity !== identity || typeof known.reason !== "string") return undefined;
    if (known.mode !== "erofs" && known.mode !== "loop" && known.mode !== "fuse") return undefined;
    return { mode: known.mode, reason: known.reason };
  } catch {
    return undefined;
  }
}

async function runSelfTest(options: SelfTestOptions): Promise<SelfTestVerdict> {
  const scope = new Scope();
  try {
    const probe = scope.use(await Probe.start(options));
    const metadataPath = join(options.scratchDir, `self-test-${process.pid}.erofs`);
    scope.defer(() => rm(metadataPath, { force: true }));
    await writeFile(metadataPath, testImage());
    const reasons: string[] = [];
    for (const mode of ["erofs", "loop"] as const) {
      const fault = await findFault(probe, mode, metadataPath, options);
      if (fault === undefined) {
        reasons.push(mode === "erofs" ? "the self-test passed" : "its self-test passed");
        return { mode, reason: reasons.join("; ") };
      }
      reasons.push(`${mode} mode: ${fault}`);
    }
    return { mode: "fuse", reason: reasons.join("; ") };
  } finally {
    await scope[Symbol.asyncDispose]();
  }
}

/** One file that is the whole device. */
function testImage(): Buffer {
  const root = new ErofsInodeInput(defaultDirectory());
  const attributes = { ...defaultDirectory(), mode: FILE_TYPE.regular | 0o400 };
  const extent = { fileOffset: 0, length: DEVICE_BYTES, device: 1, deviceOffset: 0 };
  const file = new ErofsInodeInput(attributes, {
    data: { kind: "extents", size: DEVICE_BYTES, extents: [extent] },
  });
  root.entries?.set("file", file);
  return writeErofs(root, { devices: [{ bytes: DEVICE_BYTES }] });
}

/** What is wrong with the mode, or undefined. */
async function findFault(
  probe: Probe,
  mode: "erofs" | "loop",
  metadataPath: string,
  options: SelfTestOptions,
): Promise<string | undefined> {
  const target = join(options.stateDir, "self-test", mode);
  const scope = new Scope();
  try {
    await mkdir(target, { recursive: true });
    const request = { metadataPath, devicePaths: [probe.devicePath], target };
    await (mode === "erofs" ? mountErofsFiles(request) : mountErofsLoops(request));
    scope.defer(() => unmount(target, { detach: true }));
    const path = join(target, "file");
    const file = await open(path, "r");
    scope.defer(() => file.close());
    return (await findErrorFault(probe, file)) ?? (await findKillFault(probe, file, path));
  } catch (error) {
    if (options.signal.aborted) throw error;
    return errorMessage(error);
  } finally {
    await scope[Symbol.asyncDispose]();
  }
}

/** A read that fails after a good part must fail, and be right once its source is. */
async function findErrorFault(probe: Probe, file: FileHandle): Promise<string | undefined> {
  for (const at of FAILING_AT) {
    probe.order({ kind: "fail", start: at, end: at + PAGE_BYTES });
    let errors = 0;
    for (let offset = at - BEFORE_BYTES; offset < at + AFTER_BYTES; offset += PAGE_BYTES) {
      const outcome = await checkRead(file, offset, PAGE_BYTES);
      if (outcome === "wrong") return "a read that failed came back as wrong data";
      if (outcome === "error") errors += 1;
    }
    probe.order({ kind: "clear" });
    if (errors === 0) return "a read error was not passed on";
    const healed = await checkRead(file, at - BEFORE_BYTES, BEFORE_BYTES + AFTER_BYTES);
    if (healed !== "right") return "a read that failed left wrong data in the page cache";
  }
  return undefined;
}

/** A reader killed while it waits must leave nothing behind. */
async function findKillFault(
  probe: Probe,
  file: FileHandle,
  path: string,
): Promise<string | undefined> {
  for (const at of STALLING_AT) {
    const stalled = probe.nextStall();
    probe.order({ kind: "stall", start: at, end: at + PAGE_BYTES });
    await probe.killReader(path, at - BEFORE_BYTES, at + AFTER_BYTES, stalled);
    probe.order({ kind: "clear" });
    const healed = await checkRead(file, at - BEFORE_BYTES, BEFORE_BYTES + AFTER_BYTES);
    if (healed !== "right") return "a killed reader left wrong data in the page cache";
  }
  return undefined;
}

async function checkRead(
  file: FileHandle,
  offset: number,
  length: number,
): Promise<"right" | "wrong" | "error"> {
  const buffer = Buffer.alloc(length);
  try {
    for (let done = 0; done < length;) {
      const { bytesRead } = await file.read(buffer, done, length - done, offset + done);
      if (bytesRead === 0) return "error";
      done += bytesRead;
    }
  } catch {
    return "error";
  }
  for (let at = 0; at < length; at += 4) {
    const expected = Math.floor((offset + at) / BLOCK_BYTES) + 1;
    if (buffer.readUInt32LE(at) !== expected) return "wrong";
  }
  return "right";
}

type ProbeOrder =
  | { readonly kind: "fail" | "stall"; readonly start: number; readonly end: number }
  | { readonly kind: "clear" };

/** Named by its place only: this module may not depend on the FUSE sessions. */
const PROBE_PROGRAM = join(
  dirname(fileURLToPath(import.meta.url)),
  "..",
  "fuse",
  "probe-process.js",
);

/** The throw-away process that serves the test's data device. */
class Probe implements AsyncDisposable {
  readonly devicePath: string;
  readonly #child: ChildProcess;
  readonly #mountpoint: string;
  readonly #signal: AbortSignal;

  private constructor(child: ChildProcess, mountpoint: string, signal: AbortSignal) {
    this.#child = child;
    this.#mountpoint = mountpoint;
    this.devicePath = join(mountpoint, "data");
    this.#signal = signal;
  }

  static async start(options: SelfTestOptions): Promise<Probe> {
    const folder = join(options.stateDir, "self-test");
    await clearStale(folder);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const mountpoint = join(folder, "l");
    const args = ["--mountpoint", mountpoint, "--size", String(DEVICE_BYTES)];
    const child = fork(PROBE_PROGRAM, args, { stdio: ["ignore", "ignore", "inherit", "ipc"] });
    const deadline = new AbortController();
    const cancel = options.clock.timer(SELF_TEST_MS_MAX, () => {
      deadline.abort(new DaemonError("deadline-exceeded", "the self-test took too long"));
    });
    child.once("exit", cancel);
    const signal = AbortSignal.any([options.signal, deadline.signal]);
    const probe = new Probe(child, mountpoint, signal);
    try {
      await raceAbort(readyOf(child), signal);
    } catch (error) {
      await probe[Symbol.asyncDispose]();
      throw error;
    }
    return probe;
  }

  order(order: ProbeOrder): void {
    this.#child.send(order);
  }

  /** Resolves at the next read that stalls. */
  async nextStall(): Promise<void> {
    await raceAbort(
      new Promise<void>((resolve) => {
        const onMessage = (message: unknown): void => {
          if (typeof message !== "object" || message === null || !("stalled" in message)) return;
          this.#child.off("message", onMessage);
          resolve();
        };
        this.#child.on("message", onMessage);
      }),
      this.#signal,
    );
  }

  /** A process that reads the range and is killed as soon as `stalled`; resolves at its end. */
  async killReader(
    path: string,
    start: number,
    end: number,
    stalled: Promise<void>,
  ): Promise<void> {
    const args = ["--read", path, "--start", String(start), "--end", String(end)];
    const reader = fork(PROBE_PROGRAM, args, { stdio: ["ignore", "ignore", "ignore", "ipc"] });
    const ended = new Promise<void>((resolve) => {
      reader.once("exit", () => {
        resolve();
      });
    });
    try {
      await stalled;
    } finally {
      reader.kill("SIGKILL");
    }
    await raceAbort(ended, this.#signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise<void>((resolve) => {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) resolve();
      else {
        this.#child.once("exit", () => {
          resolve();
        });
      }
    });
    this.#child.kill("SIGKILL");
    await ended;
    await clearStale(dirname(this.#mountpoint));
    await rm(dirname(this.#mountpoint), { recursive: true, force: true });
  }
}

async function readyOf(child: ChildProcess): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    child.once("message", (message: unknown) => {
      if (typeof message === "object" && message !== null && "failed" in message) {
        reject(new DaemonError("failed-precondition", String(message.failed)));
      } else resolve();
    });
    child.once("exit", () => {
      reject(new DaemonError("internal", "the self-test's server ended early"));
    });
    child.once("error", reject);
  });
}

/** Mounts that an interrupted self-test left; lazily, since their server is gone. */
async function clearStale(folder: string): Promise<void> {
  for (const name of ["erofs", "loop", "l"]) {
    const path = join(folder, name);
    const fsType = mountAt(await readMountInfo(), path)?.fsType;
    if (fsType === EROFS_FS_TYPE || fsType === KEEPER_FS_TYPE) {
      await unmount(path, { detach: true });
    }
  }
}
