/** The process `faasnet`: signals, standard streams, exit code. */
import { systemClock } from "../base/clock.ts";
import { DaemonError, systemErrorName } from "../base/errors.ts";
import { EXIT } from "./exit-codes.ts";
import { runProgram } from "./program.ts";
import { realDaemon } from "./real-daemon.ts";
import { createTerminal } from "./terminal.ts";
import { programVersion } from "./version.ts";

/** The first signal asks to stop, the second does not ask. */
function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(EXIT.interrupted);
      controller.abort(new DaemonError("canceled", `stopped by ${name}`));
    });
  }
  return controller.signal;
}

/** `faasnet status | head` closes our stdout: no fault, and nobody is left to print for. */
function endQuietlyWhenOutputCloses(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: Error) => {
      if (systemErrorName(error) !== "EPIPE") throw error;
    });
  }
}

endQuietlyWhenOutputCloses();
process.exitCode = await runProgram(
  process.argv.slice(2),
  {
    api: realDaemon,
    terminal: createTerminal(process.stdout, process.stderr),
    clock: systemClock,
    signal: stopSignal(),
  },
  { version: programVersion() },
);
