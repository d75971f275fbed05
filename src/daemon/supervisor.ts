/**
 * Keeps one role's process running: adopts it where it already runs, else spawns it, and spawns
 * it again with a growing pause when it dies. A role is detached: it outlives its supervisor.
 */
import { spawn } from "node:child_process";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { LOCK_HELD_EXIT_STATUS } from "../base/process-lock.ts";
import { connectControl } from "../control/index.ts";
import type { ControlConnection } from "../control/index.ts";
import { childEnvironment } from "./environment.ts";

const RESTART_PAUSE_MS_MIN = 50;
const RESTART_PAUSE_MS_MAX = 5_000;
/** A role that lived this long starts again without a pause. */
const HEALTHY_AFTER_MS = 30_000;
const START_TIMEOUT_MS = 15_000;
const START_POLL_MS = 20;
/** libuv's pool serves preads, inflate and DNS; 4 blocked calls would stall all others. */
const UV_THREADPOOL_SIZE = "16";
/**
 * Blocks are buffers of about 1 MiB that live for moments. glibc would keep them: a heap for each
 * thread, and a threshold that grows until such buffers lie in heaps (docs/memory.md has figures).
 */
const MALLOC_ENVIRONMENT = {
  MALLOC_ARENA_MAX: "2",
  MALLOC_MMAP_THRESHOLD_: "131072",
  MALLOC_TRIM_THRESHOLD_: "131072",
};

export interface RoleSpec {
  readonly name: string;
  /** Compiled entry beside this file, e.g. "./keeper-process.js". */
  readonly entry: string;
  readonly args: readonly string[];
  /** V8 options: each role has its own memory budget. */
  readonly nodeOptions: readonly string[];
  readonly socket: string;
  /** Its standard input is a pipe of ours: it sees our end, however we end. */
  readonly isTied: boolean;
}

interface SpawnedRole {
  readonly pid: number;
  /** `isFinal`: another try would end the same way. */
  exit: { readonly how: string; readonly isFinal: boolean } | undefined;
}

export class RoleSupervisor implements AsyncDisposable {
  readonly #spec: RoleSpec;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #stop = new AbortController();
  #connection: ControlConnection | undefined;
  #loop: Promise<void> | undefined;
  restarts = 0;

  constructor(spec: RoleSpec, clock: Clock, log: Logger) {
    this.#spec = spec;
    this.#clock = clock;
    this.#log = log.child({ role: spec.name });
  }

  /** Resolves when the role answers on its socket; watches it from then on. */
  async start(options: { readonly signal: AbortSignal }): Promise<void> {
    const signal = AbortSignal.any([options.signal, this.#stop.signal]);
    this.#connection = await this.#adoptOrSpawn(signal);
    this.#loop = this.#watch();
  }

  /** Resolves when the role can be reached; at once when it is not watched. */
  async reached(options: { readonly signal: AbortSignal }): Promise<void> {
    while (this.#loop !== undefined && this.#connection?.isClosed !== false) {
      await this.#clock.sleep(START_POLL_MS, options);
    }
  }

  /** The role's end is wanted from now on. */
  stopWatching(): void {
    this.#stop.abort(new DaemonError("canceled", "supervisor is stopping"));
  }

  /** Stops watching; the role itself goes on (it is told to go by its own protocol). */
  async [Symbol.asyncDispose](): Promise<void> {
    this.stopWatching();
    await this.#connection?.[Symbol.asyncDispose]();
    await this.#loop;
  }

  async #adoptOrSpawn(signal: AbortSignal): Promise<ControlConnection> {
    try {
      const connection = await connectControl(this.#spec.socket, {}, { signal });
      this.#log.info("role-adopted");
      return connection;
    } catch (error) {
      if (signal.aborted) throw error;
    }
    return this.#spawn(signal);
  }

  async #spawn(signal: AbortSignal): Promise<ControlConnection> {
    let child = this.#spawnProcess();
    const deadline = this.#clock.nowMs() + START_TIMEOUT_MS;
    for (;;) {
      try {
        const connection = await connectControl(this.#spec.socket, {}, { signal });
        this.#log.info("role-started", { pid: child.pid });
        return connection;
      } catch (error) {
        if (signal.aborted) throw error;
        const { exit } = child;
        if (this.#clock.nowMs() > deadline || exit?.isFinal === true) {
          const how = exit?.how ?? "no answer";
          // It never answered: whoever tries next must not find it half-started.
          if (exit === undefined && child.pid !== 0) process.kill(child.pid, "SIGKILL");
          const text = `${this.#spec.name} did not start: ${how}`;
          throw new DaemonError("unavailable", text, { cause: error });
        }
        // Killed, or another one is just ending or starting (spawned by a killed supervisor).
        if (exit !== undefined) child = this.#spawnProcess();
      }
      await this.#clock.sleep(START_POLL_MS, { signal });
    }
  }

  #spawnProcess(): SpawnedRole {
    const entry = fileURLToPath(new URL(this.#spec.entry, import.meta.url));
    const child = spawn(process.execPath, [...this.#spec.nodeOptions, entry, ...this.#spec.args], {
      detached: true,
      stdio: [this.#spec.isTied ? "pipe" : "ignore", "ignore", "inherit"],
      cwd: "/",
      env: childEnvironment({ UV_THREADPOOL_SIZE, ...MALLOC_ENVIRONMENT }),
    });
    const spawned: SpawnedRole = { pid: child.pid ?? 0, exit: undefined };
    child.once("error", (error) => {
      spawned.exit = { how: errorMessage(error), isFinal: true };
    });
    child.once("exit", (code, killedBy) => {
      const how = killedBy ?? `exit code ${code ?? -1}`;
      spawned.exit = { how, isFinal: code !== null && code !== LOCK_HELD_EXIT_STATUS };
      this.#log.info("role-exited", { how });
    });
    child.unref();
    if (child.stdin !== null && "unref" in child.stdin) {
      (child.stdin as Socket).unref();
      child.stdin.on("error", () => undefined);
    }
    return spawned;
  }

  /** Never rejects. */
  async #watch(): Promise<void> {
    let pauseMs = RESTART_PAUSE_MS_MIN;
    const signal = this.#stop.signal;
    while (!signal.aborted) {
      const since = this.#clock.nowMs();
      await this.#connection?.closed;
      if (isAborted(signal)) return;
      this.restarts += 1;
      this.#log.warn("role-lost", { restarts: this.restarts });
      if (this.#clock.nowMs() - since > HEALTHY_AFTER_MS) pauseMs = RESTART_PAUSE_MS_MIN;
      try {
        await this.#clock.sleep(pauseMs, { signal });
        pauseMs = Math.min(pauseMs * 2, RESTART_PAUSE_MS_MAX);
        this.#connection = await this.#adoptOrSpawn(signal);
      } catch (error) {
        if (!this.#stop.signal.aborted) this.#log.error("role-not-restarted", { err: error });
      }
    }
  }
}

/** Asked anew: the type checker believes that nothing changes during an await. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
