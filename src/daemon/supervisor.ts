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
    const entry = fileURLToPath(new URL(this.#spec.entry, import.meta.url));
    const child = spawn(process.execPath, [...this.#spec.nodeOptions, entry, ...this.#spec.args], {
      detached: true,
      stdio: [this.#spec.isTied ? "pipe" : "ignore", "ignore", "inherit"],
      cwd: "/",
      env: childEnvironment({ UV_THREADPOOL_SIZE }),
    });
    let exit: string | undefined;
    child.once("error", (error) => {
      exit = errorMessage(error);
    });
    child.once("exit", (code, killedBy) => {
      exit = killedBy ?? `exit code ${code ?? -1}`;
      this.#log.info("role-exited", { how: exit });
    });
    child.unref();
    if (child.stdin !== null && "unref" in child.stdin) {
      (child.stdin as Socket).unref();
      child.stdin.on("error", () => undefined);
    }
    const deadline = this.#clock.nowMs() + START_TIMEOUT_MS;
    for (;;) {
      try {
        const connection = await connectControl(this.#spec.socket, {}, { signal });
        this.#log.info("role-started", { pid: child.pid ?? 0 });
        return connection;
      } catch (error) {
        if (signal.aborted) throw error;
        if (exit !== undefined || this.#clock.nowMs() > deadline) {
          throw new DaemonError(
            "unavailable",
            `${this.#spec.name} did not start: ${exit ?? "no answer"}`,
            {
              cause: error,
            },
          );
        }
      }
      await this.#clock.sleep(START_POLL_MS, { signal });
    }
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
