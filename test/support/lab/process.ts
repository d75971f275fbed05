/**
 * Commands and servers of the lab. A server runs in a process group of its own and dies with this
 * process, also when this process is killed (setpriv's parent-death signal).
 */
import { spawn, type ChildProcess } from "node:child_process";
import { createWriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const OUTPUT_BYTES_MAX = 256 * 1024 * 1024;
const RUN_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 8_000;

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Uint8Array;
  readonly timeoutMs?: number;
  /** Resolve whatever the status is. */
  readonly allowFailure?: boolean;
  readonly signal?: AbortSignal;
}

export interface RunResult {
  readonly status: number | null;
  readonly killedBy: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stdoutBytes: Buffer;
  readonly stderr: string;
  readonly seconds: number;
  /** From the start to the first byte on standard output; undefined when there was none. */
  readonly firstOutputSeconds: number | undefined;
}

/**
 * Runs a command to its end. Never synchronous: a command that touches one of our mounts, run
 * synchronously by the process that serves it, would hang for ever.
 */
export async function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const started = performance.now();
  const child = spawn(command, args, {
    env: { ...process.env, ...options.env },
    stdio: ["pipe", "pipe", "pipe"],
    cwd: "/",
    detached: true,
  });
  const kill = (): void => {
    killGroup(child.pid, "SIGKILL");
  };
  const limit = setTimeout(kill, options.timeoutMs ?? RUN_TIMEOUT_MS);
  options.signal?.addEventListener("abort", kill, { once: true });
  const output: Buffer[][] = [[], []];
  let total = 0;
  let firstOutputSeconds: number | undefined;
  child.stdout.once("data", () => {
    firstOutputSeconds = (performance.now() - started) / 1000;
  });
  const collect = (into: Buffer[]) => (chunk: Buffer) => {
    total += chunk.length;
    if (total > OUTPUT_BYTES_MAX) kill();
    else into.push(chunk);
  };
  child.stdout.on("data", collect(output[0] ?? []));
  child.stderr.on("data", collect(output[1] ?? []));
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.input ?? "");
  try {
    const [status, killedBy] = await closed(child);
    const stdoutBytes = Buffer.concat(output[0] ?? []);
    const stderr = Buffer.concat(output[1] ?? []).toString("utf8");
    const stdout = stdoutBytes.toString("utf8");
    const seconds = (performance.now() - started) / 1000;
    if (status !== 0 && options.allowFailure !== true) {
      const how = killedBy === null ? `status ${status ?? -1}` : `killed by ${killedBy}`;
      const text = `${stderr}\n${stdout}`.trim().slice(-4000);
      throw new Error(
        `${command} ${args.join(" ")}: ${how} after ${seconds.toFixed(1)} s\n${text}`,
      );
    }
    return { status, killedBy, stdout, stdoutBytes, stderr, seconds, firstOutputSeconds };
  } finally {
    clearTimeout(limit);
    options.signal?.removeEventListener("abort", kill);
  }
}

async function closed(child: ChildProcess): Promise<[number | null, NodeJS.Signals | null]> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status, killedBy) => {
      resolve([status, killedBy]);
    });
  });
}

export function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

export interface ServerOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Standard output and error go here. */
  readonly logFile: string;
  /** Whether the server answers now; asked until it does. */
  readonly ready: () => Promise<boolean>;
  readonly readyTimeoutMs?: number;
}

export class Server implements AsyncDisposable {
  readonly name: string;
  readonly logFile: string;
  readonly #child: ChildProcess;
  #exit: string | undefined;
  readonly exited: Promise<void>;

  private constructor(name: string, child: ChildProcess, logFile: string) {
    this.name = name;
    this.#child = child;
    this.logFile = logFile;
    this.exited = new Promise((resolve) => {
      child.once("error", (error) => {
        this.#exit = error.message;
        resolve();
      });
      child.once("exit", (status, killedBy) => {
        this.#exit = killedBy ?? `status ${status ?? -1}`;
        resolve();
      });
    });
  }

  static async start(
    name: string,
    command: string,
    args: readonly string[],
    options: ServerOptions,
  ): Promise<Server> {
    const child = spawn("setpriv", ["--pdeathsig", "KILL", "--", command, ...args], {
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
      cwd: "/",
      detached: true,
    });
    const log = createWriteStream(options.logFile, { flags: "a" });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    child.once("close", () => log.end());
    const server = new Server(name, child, options.logFile);
    const deadline = performance.now() + (options.readyTimeoutMs ?? 20_000);
    while (!(await options.ready())) {
      if (server.#exit !== undefined || performance.now() > deadline) {
        await server.kill();
        const text = await server.logTail();
        throw new Error(`${name} did not start (${server.#exit ?? "no answer"}):\n${text}`);
      }
      await sleep(20);
    }
    return server;
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  /** How it ended: "status 0", "SIGKILL"; undefined while it runs. */
  get exit(): string | undefined {
    return this.#exit;
  }

  get isRunning(): boolean {
    return this.#exit === undefined;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.isRunning) this.#child.kill(signal);
  }

  /** The last lines of its log. */
  async logTail(lines = 40): Promise<string> {
    const text = await readFile(this.logFile, "utf8").catch(() => "");
    return text.split("\n").slice(-lines).join("\n");
  }

  /** SIGTERM, and SIGKILL to its group when it does not go. */
  async stop(timeoutMs = STOP_TIMEOUT_MS): Promise<void> {
    this.signal("SIGCONT");
    this.signal("SIGTERM");
    const limit = new AbortController();
    await Promise.race([
      this.exited,
      sleep(timeoutMs, undefined, { signal: limit.signal }).catch(() => undefined),
    ]);
    limit.abort();
    await this.kill();
  }

  async kill(): Promise<void> {
    killGroup(this.#child.pid, "SIGKILL");
    await this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/** Asks until it is so; `what` names it in the error. */
export async function eventually(
  what: string,
  condition: () => Promise<boolean> | boolean,
  options: { readonly timeoutMs?: number; readonly everyMs?: number } = {},
): Promise<void> {
  const timeoutMs = options.timeoutMs ?? 10_000;
  const deadline = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await sleep(options.everyMs ?? 20);
  }
}
