/** Our program as a user runs it: bin/faasnet with a configuration, root and state of its own. */
import { mkdir, readlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Containerd, type ContainerdOptions } from "./containerd.ts";
import { mountsUnder, processesOf, pssOf, type ProcessEntry } from "./kernel.ts";
import type { Lab } from "./lab.ts";
import { programPath, type ContainerdLine } from "./paths.ts";
import { Server, eventually, run, type RunOptions, type RunResult } from "./process.ts";
import { Registry } from "./registry.ts";

/** The proxy plugin's name in the lab's containerds. */
export const SNAPSHOTTER = "faasnet";
const READY_TIMEOUT_MS = 30_000;
const LEAVE_TIMEOUT_MS = 15_000;

export type MountMode = "auto" | "erofs" | "loop" | "fuse";

export interface DaemonOptions {
  readonly mode?: MountMode;
  /** Fetch the rest of an image by itself (default: off, so that what is fetched was read). */
  readonly background?: boolean;
  readonly backgroundDelaySeconds?: number;
  readonly quotaBytes?: number;
  readonly minFreeBytes?: number;
  readonly readLimitSeconds?: number;
  /** RLIMIT_NOFILE of the main process, which the others inherit. */
  readonly openFilesMax?: number;
  /** Its persistent folder, where that lies elsewhere (a file system of its own). */
  readonly root?: string;
  readonly knownHosts?: readonly string[];
  readonly logLevel?: "info" | "debug";
}

/** What `faasnet status --json` says, as far as the tests read it. */
export interface DaemonStatus {
  readonly pid: number;
  readonly ready: boolean;
  readonly mode: string;
  readonly modeReason: string;
  readonly waitingReads: number;
  readonly blocksBySource: Readonly<
    Record<string, { readonly blocks: number; readonly bytes: number }>
  >;
  readonly cache: { readonly usedBytes: number };
}

export class FaasnetDaemon implements AsyncDisposable {
  readonly folder: string;
  readonly root: string;
  readonly state: string;
  /** The Snapshots service's socket. */
  readonly address: string;
  #options: DaemonOptions;
  readonly #env: Readonly<Record<string, string>>;
  #server: Server | undefined;

  private constructor(
    folder: string,
    options: DaemonOptions,
    env: Readonly<Record<string, string>>,
  ) {
    this.folder = folder;
    this.root = options.root ?? join(folder, "root");
    this.state = join(folder, "state");
    this.address = join(this.state, "faasnet.sock");
    this.#options = options;
    this.#env = env;
  }

  /** Not started yet: containerd's configuration needs the address, and ours needs containerd's. */
  static async create(lab: Lab, options: DaemonOptions = {}): Promise<FaasnetDaemon> {
    const folder = await lab.makeFolder("d");
    return lab.use(new FaasnetDaemon(folder, options, lab.env));
  }

  get configFile(): string {
    return join(this.folder, "config.toml");
  }

  get logFile(): string {
    return join(this.folder, "log");
  }

  async #configure(containerdAddress: string): Promise<void> {
    const options = this.#options;
    const hosts = (options.knownHosts ?? []).map((host) => `"${host}"`).join(", ");
    const config = [
      `root = "${this.root}"`,
      `state = "${this.state}"`,
      `address = "${this.address}"`,
      `containerd_address = "${containerdAddress}"`,
      `log_level = "${options.logLevel ?? "info"}"`,
      "[mount]",
      `mode = "${options.mode ?? "auto"}"`,
      "[cache]",
      `quota_bytes = ${options.quotaBytes ?? 8 * 1024 ** 3}`,
      ...(options.minFreeBytes === undefined ? [] : [`min_free_bytes = ${options.minFreeBytes}`]),
      "[background]",
      `enabled = ${options.background ?? false}`,
      `delay_seconds = ${options.backgroundDelaySeconds ?? 30}`,
      "[read]",
      `limit_seconds = ${options.readLimitSeconds ?? 60}`,
      "[registry]",
      `known_hosts = [${hosts}]`,
    ];
    await mkdir(this.folder, { recursive: true });
    await writeFile(this.configFile, `${config.join("\n")}\n`);
  }

  async start(containerdAddress: string): Promise<void> {
    await this.#configure(containerdAddress);
    await this.restart();
  }

  /** Stops it cleanly and starts it with other options on what it has. */
  async reconfigure(containerdAddress: string, options: DaemonOptions): Promise<void> {
    await this.stop();
    this.#options = { ...this.#options, ...options };
    await this.start(containerdAddress);
  }

  /** Starts it again with the same configuration. */
  async restart(): Promise<void> {
    const openFiles = this.#options.openFilesMax;
    const daemon = ["daemon", "--config", this.configFile];
    this.#server = await Server.start(
      "faasnet daemon",
      openFiles === undefined ? programPath : "prlimit",
      openFiles === undefined ? daemon : [`--nofile=${openFiles}`, "--", programPath, ...daemon],
      {
        logFile: this.logFile,
        env: this.#env,
        ready: async () => (await this.status().catch(() => undefined))?.ready === true,
        readyTimeoutMs: READY_TIMEOUT_MS,
      },
    );
  }

  async cli(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const where = ["--root", this.root, "--state", this.state];
    const env = { ...this.#env, ...options.env };
    return run(programPath, [...args, ...where], { ...options, env });
  }

  async status(): Promise<DaemonStatus> {
    const { stdout } = await this.cli(["status", "--json"], { timeoutMs: 10_000 });
    return JSON.parse(stdout) as DaemonStatus;
  }

  async logTail(lines = 40): Promise<string> {
    return (await this.#server?.logTail(lines)) ?? "";
  }

  /** Its processes in all roles, without clients and containers. */
  async processes(): Promise<readonly ProcessEntry[]> {
    const found: ProcessEntry[] = [];
    for (const entry of await processesOf(this.folder)) {
      const executable = await readlink(`/proc/${entry.pid}/exe`).catch(() => "");
      if (executable === process.execPath) found.push(entry);
    }
    return found;
  }

  async pssBytes(): Promise<number> {
    const each = await Promise.all((await this.processes()).map(({ pid }) => pssOf(pid)));
    return each.reduce((sum, bytes) => sum + bytes, 0);
  }

  async cacheClear(): Promise<void> {
    await this.cli(["cache", "clear"]);
  }

  /** kill -9 of the image service; resolves when another one answers. */
  async killImageService(): Promise<void> {
    const { pid } = await this.status();
    process.kill(pid, "SIGKILL");
    await eventually(
      "another image service answers",
      async () => {
        const status = await this.status().catch(() => undefined);
        return status !== undefined && status.pid !== pid && status.ready;
      },
      { timeoutMs: READY_TIMEOUT_MS, everyMs: 50 },
    );
  }

  /** kill -9 of the main process: the other roles go on. */
  async killMain(): Promise<void> {
    await this.#server?.kill();
    this.#server = undefined;
  }

  /** A clean stop, by SIGTERM. */
  async stop(): Promise<void> {
    await this.#server?.stop(LEAVE_TIMEOUT_MS);
    this.#server = undefined;
  }

  /** Containers have ended by now: everything of ours must go with the daemon. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#server === undefined) return;
    await this.stop();
    await eventually(
      "all roles and mounts of the daemon are gone",
      async () =>
        (await this.processes()).length === 0 && (await mountsUnder(this.folder)).length === 0,
      { timeoutMs: LEAVE_TIMEOUT_MS, everyMs: 50 },
    );
  }
}

export interface Stack {
  readonly registry: Registry;
  readonly daemon: FaasnetDaemon;
  readonly containerd: Containerd;
}

export interface StackOptions extends DaemonOptions {
  readonly line?: ContainerdLine;
  readonly containerd?: Partial<ContainerdOptions>;
}

/**
 * Registry, containerd and our daemon, each knowing the others. They end in the right order: the
 * containers with their containerd, then the daemon, then the registry.
 */
export async function startStack(lab: Lab, options: StackOptions = {}): Promise<Stack> {
  const registry = await Registry.start(lab);
  // A client that passes no image name leaves the host without its port in the content store.
  const daemon = await FaasnetDaemon.create(lab, { knownHosts: [registry.address], ...options });
  const containerd = await Containerd.start(lab, {
    line: options.line ?? "2",
    registry: registry.address,
    snapshotter: { name: SNAPSHOTTER, address: daemon.address, root: daemon.root },
    ...options.containerd,
  });
  await daemon.start(containerd.address);
  return { registry, daemon, containerd };
}
