/**
 * Work with a large heap (maps, merges) runs in a child process that exits, so that its memory
 * does not stay in the image service. One job a process; JSON messages over its IPC channel.
 */
import { fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { abortReason, throwIfAborted } from "../base/abort.ts";
import { DaemonError, errorCode, errorMessage, isErrorCode } from "../base/errors.ts";

/** V8's limit for a job: a layer or chain of a million entries needs 0.8 GB. */
const JOB_NODE_OPTIONS = ["--max-old-space-size=2048"];

export type JobMessage =
  | { readonly kind: "progress"; readonly done: number }
  | { readonly kind: "result"; readonly result: unknown }
  | { readonly kind: "error"; readonly code: string; readonly message: string };

export interface RunJobOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: (done: number) => void;
}

/** The caller parses the result. An abort kills the process, and is answered when it is gone. */
export async function runJob(job: object, options: RunJobOptions): Promise<unknown> {
  throwIfAborted(options.signal);
  const entry = fileURLToPath(new URL("./job-process.js", import.meta.url));
  const child = fork(entry, [], {
    execArgv: JOB_NODE_OPTIONS,
    cwd: "/",
    stdio: ["ignore", "ignore", "inherit", "ipc"],
  });
  return new Promise<unknown>((resolve, reject) => {
    const onAbort = (): void => {
      child.kill("SIGKILL");
    };
    const settle = (action: () => void): void => {
      options.signal.removeEventListener("abort", onAbort);
      action();
    };
    options.signal.addEventListener("abort", onAbort, { once: true });
    child.on("message", (message) => {
      const parsed = message as JobMessage; // our own program on the other end
      if (parsed.kind === "progress") options.onProgress?.(parsed.done);
      else if (parsed.kind === "result")
        settle(() => {
          resolve(parsed.result);
        });
      else
        settle(() => {
          reject(jobError(parsed));
        });
    });
    child.once("error", (error) => {
      settle(() => {
        reject(new DaemonError("internal", "cannot start a job process", { cause: error }));
      });
    });
    child.once("exit", (code, killedBy) => {
      settle(() => {
        const early = `job process ended early (${killedBy ?? code ?? -1})`;
        reject(
          options.signal.aborted ? abortReason(options.signal) : new DaemonError("internal", early),
        );
      });
    });
    child.send(job);
  });
}

function jobError(message: { readonly code: string; readonly message: string }): DaemonError {
  return new DaemonError(isErrorCode(message.code) ? message.code : "internal", message.message);
}

/** The other end: takes one job, answers, exits. A lost parent ends it at once. */
export function serveJob(
  run: (job: unknown, progress: (done: number) => void) => Promise<unknown>,
): void {
  const send = (message: JobMessage): Promise<void> =>
    new Promise((resolve) => {
      process.send?.(message, undefined, {}, () => {
        resolve();
      });
    });
  process.once("disconnect", () => process.exit(1));
  process.once("message", (job) => {
    run(job, (done) => void send({ kind: "progress", done }))
      .then((result) => send({ kind: "result", result }))
      .catch((error: unknown) =>
        send({ kind: "error", code: errorCode(error), message: errorMessage(error) }),
      )
      .finally(() => process.exit(0));
  });
}
