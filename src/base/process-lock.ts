/**
 * One process per folder: an abstract unix socket named after the folder, which the kernel frees
 * when its owner dies, however it dies. Source: unix(7), "Abstract sockets".
 */
import { createHash } from "node:crypto";
import { mkdir, realpath } from "node:fs/promises";
import { connect, createServer } from "node:net";
import type { Server } from "node:net";
import { DaemonError, errorCode, systemErrorName } from "./errors.ts";

/** Of a process that found its lock held. Source: sysexits.h, EX_TEMPFAIL. */
export const LOCK_HELD_EXIT_STATUS = 75;

export class ProcessLock implements AsyncDisposable {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Makes the folder and takes its lock; `already-exists` names the process that holds it. */
  static async acquire(folder: string, purpose: string): Promise<ProcessLock> {
    await mkdir(folder, { recursive: true, mode: 0o711 });
    const path = await realpath(folder);
    const hash = createHash("sha256").update(path).digest("hex").slice(0, 32);
    const name = `\0faasnet-${purpose}-${hash}`;
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.end(`${process.pid}`);
    });
    const failure = await new Promise<Error | undefined>((resolve) => {
      server.once("error", resolve);
      server.listen(name, () => {
        resolve(undefined);
      });
    });
    if (failure === undefined) return new ProcessLock(server);
    if (systemErrorName(failure) !== "EADDRINUSE") throw failure;
    const owner = await ownerOf(name);
    throw new DaemonError(
      "already-exists",
      `${folder} is in use by process ${owner}; stop it or choose another folder`,
    );
  }

  /**
   * Undefined where another process holds it. A role takes it before its socket and to its very
   * end: two that start at once (by two supervisors, the first of which was killed) would take the
   * socket from each other, and the one that stays would not be the one that is reached.
   */
  static async acquireUnlessHeld(
    folder: string,
    purpose: string,
  ): Promise<ProcessLock | undefined> {
    try {
      return await ProcessLock.acquire(folder, purpose);
    } catch (error) {
      if (errorCode(error) === "already-exists") return undefined;
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
  }
}

async function ownerOf(name: string): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connect(name);
    socket.setTimeout(1000, () => socket.destroy());
    socket.on("data", (piece: Buffer) => {
      text += piece.toString("latin1").slice(0, 16);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      resolve(/^[0-9]+$/.test(text) ? text : "unknown");
    });
  });
}
