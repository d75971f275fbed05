/**
 * The keeper as a process: `node keeper-process.js --socket PATH --state DIR`. Whoever starts it
 * detaches it, sets UV_THREADPOOL_SIZE, and gives it a standard error that outlives the starter.
 * It ends by Shutdown or SIGTERM once nothing is mounted, and by nothing else short of SIGKILL.
 */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { systemClock } from "../base/clock.ts";
import { DaemonError, errorMessage } from "../base/errors.ts";
import { createLogger, LOG_LEVELS } from "../base/log.ts";
import type { Logger, LogLevel } from "../base/log.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import { protectFromOomKiller, unmount } from "../base/native.ts";
import { packageVersion } from "../base/package-root.ts";
import { LOCK_HELD_EXIT_STATUS, ProcessLock } from "../base/process-lock.ts";
import { systemRandom } from "../base/random.ts";
import { ControlServer } from "../control/index.ts";
import { requireFuse } from "../fuse/index.ts";
import { Keeper } from "./keeper.ts";

interface KeeperArguments {
  readonly socket: string;
  readonly state: string;
  readonly logLevel: LogLevel;
  /** Of `faasnet mount`: when standard input ends, unmount this folder and everything, and go. */
  readonly tiedTarget: string | undefined;
}

function parseArguments(args: readonly string[]): KeeperArguments {
  const { values } = parseArgs({
    args: [...args],
    options: {
      socket: { type: "string" },
      state: { type: "string" },
      "log-level": { type: "string", default: "info" },
      "tied-to-stdin": { type: "string" },
    },
  });
  const logLevel = LOG_LEVELS.find((level) => level === values["log-level"]);
  if (values.socket === undefined || values.state === undefined || logLevel === undefined) {
    throw new DaemonError(
      "invalid-argument",
      "usage: keeper --socket PATH --state DIR [--log-level error|warn|info|debug]",
    );
  }
  const tiedTarget = values["tied-to-stdin"];
  return { socket: values.socket, state: values.state, logLevel, tiedTarget };
}

/** A log line that nobody can read (EPIPE: the starter is gone) must not end the process. */
function survive(log: Logger): void {
  const onError = (error: unknown): void => {
    const isLost = error instanceof Error && "code" in error && error.code === "EPIPE";
    if (!isLost) log.error("keeper-fault", { err: error });
  };
  process.on("uncaughtException", onError);
  process.on("unhandledRejection", onError);
  process.on("SIGHUP", () => undefined);
  process.on("SIGINT", () => undefined);
  process.on("SIGPIPE", () => undefined);
}

/** The starter died without a word: its mount goes, then ours, whoever still uses them. */
async function leaveAfterStarter(keeper: Keeper, target: string, log: Logger): Promise<void> {
  log.warn("starter-died", { target });
  try {
    const mount = mountAt(await readMountInfo(), target);
    if (mount !== undefined) await unmount(target, { detach: true });
  } catch (error) {
    log.error("target-not-unmounted", { target, err: error });
  }
  await keeper.shutdown({ force: true }).catch((error: unknown) => {
    log.error("keeper-shutdown-failed", { err: error });
  });
}

/** Resolves when the keeper has left; then the caller may exit. */
async function main(args: readonly string[]): Promise<void> {
  const { socket, state, logLevel, tiedTarget } = parseArguments(args);
  const log = createLogger(logLevel, { role: "keeper", pid: process.pid });
  // Nothing below may hold a folder that somebody wants to unmount.
  process.chdir("/");
  await requireFuse();
  survive(log);
  const lock = await ProcessLock.acquireUnlessHeld(state, "keeper");
  if (lock === undefined) process.exit(LOCK_HELD_EXIT_STATUS);
  if (!(await protectFromOomKiller())) log.debug("oom-score-not-set");
  const controller = new AbortController();
  let leave: (() => void) | undefined;
  const left = new Promise<void>((resolve) => {
    leave = resolve;
  });
  const keeper = new Keeper({
    clock: systemClock,
    log,
    version: await packageVersion(),
    instance: Buffer.from(systemRandom.bytes(16)).toString("hex"),
    onEmpty: () => leave?.(),
    signal: controller.signal,
  });
  const server = await ControlServer.listen(socket, keeper.handlers());
  const pidFile = join(state, "keeper.pid");
  await writeFile(pidFile, `${process.pid}\n`);
  process.on("SIGTERM", () => {
    log.info("keeper-leaving");
    keeper.shutdown({ force: false }).catch((error: unknown) => {
      log.error("keeper-shutdown-failed", { err: error });
    });
  });
  if (tiedTarget !== undefined) {
    process.stdin.on("error", () => undefined);
    process.stdin.on("end", () => {
      void leaveAfterStarter(keeper, tiedTarget, log);
    });
    process.stdin.resume();
  }
  log.info("keeper-started", { socket });
  await left;
  await rm(pidFile, { force: true });
  await server[Symbol.asyncDispose]();
  controller.abort(new DaemonError("canceled", "the keeper leaves"));
  await keeper[Symbol.asyncDispose]();
  log.info("keeper-left");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await main(process.argv.slice(2));
    process.exit(0);
  } catch (error) {
    process.stderr.write(`keeper: ${errorMessage(error)}\n`);
    process.exit(1);
  }
}
