/** The command line as a library; the process is main.ts. */
export { EXIT } from "./exit-codes.ts";
export type { ExitCode } from "./exit-codes.ts";
export { runProgram } from "./program.ts";
export type { CommandContext } from "./command-context.ts";
export type { DaemonApi } from "./daemon-api.ts";
