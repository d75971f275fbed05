/** The self-test's data device: a throw-away process that fails or stalls its reads on order. */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { raceAbort } from "../base/abort.ts";
import { DaemonError } from "../base/errors.ts";
import type { ByteRange } from "../base/range-set.ts";
import type { FaultyDevice } from "./mode-check.ts";

/** Named by its place only: this module may not depend on the FUSE sessions. */
const PROGRAM = join(dirname(fileURLToPath(import.meta.url)), "..", "fuse", "probe-process.js");

type Order = ({ readonly kind: "fail" | "stall" } & ByteRange) | { readonly kind: "clear" };

export interface SelfTestDeviceOptions {
  readonly mountpoint: string;
  readonly size: number;
  /** Ends every wait; the process is killed, so that reads of its mount end too. */
  readonly signal: AbortSignal;
}

export class SelfTestDevice implements FaultyDevice, AsyncDisposable {
  readonly path: string;
  readonly #child: ChildProcess;
  readonly #signal: AbortSignal;
  /** The mounted file, once there is one. */
  #readerPath = "";

  private constructor(child: ChildProcess, { mountpoint, signal }: SelfTestDeviceOptions) {
    this.#child = child;
    this.#signal = signal;
    this.path = join(mountpoint, "data");
  }

  static async start(options: SelfTestDeviceOptions): Promise<SelfTestDevice> {
    const { mountpoint, size, signal } = options;
    await mkdir(mountpoint, { recursive: true, mode: 0o700 });
    const args = ["--mountpoint", mountpoint, "--size", String(size)];
    const child = fork(PROGRAM, args, { stdio: ["ignore", "ignore", "inherit", "ipc"] });
    const kill = (): void => void child.kill("SIGKILL");
    signal.addEventListener("abort", kill, { once: true });
    child.once("exit", () => {
      signal.removeEventListener("abort", kill);
    });
    const device = new SelfTestDevice(child, options);
    try {
      await device.#message("ready");
    } catch (error) {
      await device[Symbol.asyncDispose]();
      throw error;
    }
    return device;
  }

  /** What `killReader` reads. */
  mounted(path: string): void {
    this.#readerPath = path;
  }

  async fail(range: ByteRange): Promise<void> {
    await this.#order({ kind: "fail", ...range });
  }

  async clear(): Promise<void> {
    await this.#order({ kind: "clear" });
  }

  async killReader(range: ByteRange, stalling: ByteRange): Promise<void> {
    const stalled = this.#message("stalled");
    // Awaited below; the order before it may fail first.
    stalled.catch(() => undefined);
    await this.#order({ kind: "stall", ...stalling });
    const args = ["--read", this.#readerPath, "--start", `${range.start}`, "--end", `${range.end}`];
    const reader = fork(PROGRAM, args, { stdio: ["ignore", "ignore", "ignore", "ipc"] });
    const ended = exited(reader);
    try {
      await stalled;
    } finally {
      reader.kill("SIGKILL");
    }
    await raceAbort(ended, this.#signal);
  }

  /** The next read could otherwise overtake it. */
  async #order(order: Order): Promise<void> {
    const obeyed = this.#message("obeyed");
    this.#child.send(order);
    await obeyed;
  }

  /** Resolves at the process's next message of that name. */
  async #message(name: string): Promise<void> {
    const child = this.#child;
    let stopListening = (): void => undefined;
    const arrived = new Promise<void>((resolve, reject) => {
      const onMessage = (message: unknown): void => {
        if (typeof message !== "object" || message === null) return;
        if (name in message) resolve();
        if ("failed" in message) {
          reject(new DaemonError("failed-precondition", String(message.failed)));
        }
      };
      const onExit = (): void => {
        reject(new DaemonError("internal", "the self-test's server ended early"));
      };
      child.on("message", onMessage);
      child.once("exit", onExit);
      child.once("error", reject);
      stopListening = (): void => {
        child.off("message", onMessage).off("exit", onExit).off("error", reject);
      };
    });
    try {
      await raceAbort(arrived, this.#signal);
    } finally {
      stopListening();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = exited(this.#child);
    this.#child.kill("SIGKILL");
    await ended;
  }
}

async function exited(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  await new Promise((resolve) => child.once("exit", resolve));
}
