/** A real keeper in a process of its own, and processes that read what it serves. */
import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { access, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { LogLevel } from "../../../src/base/log.ts";
import { readMountInfo } from "../../../src/base/mountinfo.ts";
import { unmount } from "../../../src/base/native.ts";
import { Scope } from "../../../src/base/scope.ts";
import { KeeperClient } from "../../../src/rootfs/index.ts";
import type { FetchReply, KeeperClientOptions } from "../../../src/rootfs/index.ts";

const HERE = dirname(fileURLToPath(import.meta.url));
const KEEPER_PROGRAM = join(HERE, "..", "..", "..", "src", "keeper", "keeper-process.js");

/** Why FUSE tests cannot run here, or undefined. */
async function missingForFuse(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "root is needed to mount";
  try {
    await access("/dev/fuse");
    return undefined;
  } catch {
    return "/dev/fuse is missing";
  }
}

/** Skips the suite, saying why, where FUSE tests cannot run: for its `before`. */
export async function needsFuse(context: Mocha.Context): Promise<void> {
  const missing = await missingForFuse();
  if (missing === undefined) return;
  console.warn(`skipped: ${missing}`);
  context.skip();
}

export const never: AbortSignal = new AbortController().signal;

/** Polls until the condition holds; fails loudly after the limit. */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 10_000,
): Promise<void> {
  const endMs = systemClock.nowMs() + limitMs;
  while (!(await condition())) {
    if (systemClock.nowMs() > endMs) throw new Error(`not within ${limitMs} ms: ${what}`);
    await systemClock.sleep(5, { signal: never });
  }
}

export async function ended(child: ChildProcess): Promise<number | NodeJS.Signals> {
  if (child.exitCode === null && child.signalCode === null) {
    await new Promise((resolve) => child.once("exit", resolve));
  }
  return child.exitCode ?? child.signalCode ?? -1;
}

export async function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, { maxBuffer: 1 << 26 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${program} ${args.join(" ")}: ${stderr}`, { cause: error }));
    });
  });
}

/** sha256 by another process; rejects when reading fails. */
export async function sha256File(path: string): Promise<string> {
  return (await run("sha256sum", [path])).slice(0, 64);
}

/** A process that reads one page and then ends: 0, or 1 after an error. */
export function readPage(path: string, offset: number): ChildProcess {
  const skip = `skip=${Math.floor(offset / 4096)}`;
  const args = [`if=${path}`, "of=/dev/null", "bs=4096", "count=1", skip, "status=none"];
  return spawn("dd", args, { stdio: "ignore" });
}

/** A folder, a state folder and whatever a test starts; all gone after dispose. */
export class KeeperFixture implements AsyncDisposable {
  readonly folder: string;
  readonly stateDir: string;
  readonly socketPath: string;
  readonly scope = new Scope();
  keeper: ChildProcess | undefined;
  readonly #logLevel: LogLevel;

  private constructor(folder: string, logLevel: LogLevel) {
    this.folder = folder;
    this.#logLevel = logLevel;
    this.stateDir = join(folder, "s");
    this.socketPath = join(folder, "keeper.sock");
  }

  static async start(options: { readonly logLevel?: LogLevel } = {}): Promise<KeeperFixture> {
    const { logLevel = "warn" } = options;
    const fixture = new KeeperFixture(await mkdtemp(join(tmpdir(), "faasnet-k-")), logLevel);
    fixture.scope.defer(() => fixture.#cleanUp());
    fixture.startKeeper();
    return fixture;
  }

  startKeeper(): ChildProcess {
    const args = [KEEPER_PROGRAM, "--socket", this.socketPath, "--state", this.folder];
    const keeper = spawn(process.execPath, [...args, "--log-level", this.#logLevel], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, UV_THREADPOOL_SIZE: "16" },
    });
    this.keeper = keeper;
    return keeper;
  }

  async killKeeper(): Promise<void> {
    this.keeper?.kill("SIGKILL");
    if (this.keeper !== undefined) await ended(this.keeper);
  }

  /** A client whose fetches are answered by `onFetch`. */
  client(
    onFetch: KeeperClientOptions["onFetch"],
    options: Partial<KeeperClientOptions> = {},
  ): KeeperClient {
    return this.scope.use(
      new KeeperClient({
        socketPath: this.socketPath,
        clock: systemClock,
        log: silentLogger,
        readWaitMs: 60_000,
        onFetch,
        ...options,
      }),
    );
  }

  async #cleanUp(): Promise<void> {
    const mounts = await readMountInfo();
    for (const mount of mounts.reverse()) {
      if (mount.mountpoint.startsWith(`${this.folder}/`)) {
        await unmount(mount.mountpoint, { detach: true });
      }
    }
    await this.killKeeper();
    await rm(this.folder, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.scope[Symbol.asyncDispose]();
  }
}

/** An answer that is given later, by the test. */
export class Gate {
  #waiting: (() => void)[] = [];
  #isOpen = false;

  get waiting(): number {
    return this.#waiting.length;
  }

  async pass(): Promise<void> {
    if (this.#isOpen) return;
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  open(): void {
    this.#isOpen = true;
    for (const resume of this.#waiting) resume();
    this.#waiting = [];
  }
}

export type { FetchReply };
