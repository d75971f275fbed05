/** An error with what to do about it, and how any error is shown to a person. */
import { DaemonError, errorCode, errorMessage } from "../base/errors.ts";
import type { ErrorCode } from "../base/errors.ts";
import { redactText } from "../base/log.ts";
import { EXIT_BY_ERROR } from "./exit-codes.ts";
import type { ExitCode } from "./exit-codes.ts";

/** Caught by type: its hint and exit code are the command's own. */
export class CliError extends DaemonError {
  readonly hint: string;
  readonly exitCode: ExitCode;

  constructor(
    code: ErrorCode,
    message: string,
    options: { readonly hint: string; readonly exitCode?: ExitCode; readonly cause?: unknown },
  ) {
    super(code, message, { cause: options.cause });
    this.name = "CliError";
    this.hint = options.hint;
    this.exitCode = options.exitCode ?? EXIT_BY_ERROR[code];
  }
}

/** What a person can usually do, by code; empty where the message has to say it. */
const HINTS: Readonly<Record<ErrorCode, string>> = {
  aborted: "try again",
  "already-exists": "",
  canceled: "",
  "data-loss":
    "bytes do not have the digest that names them: pull the image again, and tell its publisher",
  "deadline-exceeded": "the other side is too slow or gone: try again",
  "failed-precondition": "",
  internal: "this is a fault of faasnet: the daemon's log has more",
  "invalid-argument": "",
  "not-found": "check the spelling; `faasnet status` lists what the daemon knows",
  "out-of-range": "",
  "permission-denied": "run it as root",
  "resource-exhausted": "try again when less is going on",
  unauthenticated: "log in to the registry (`docker login`, `nerdctl login`) as the daemon's user",
  unavailable: "check the network and the registry, then try again",
  unimplemented: "",
};

export interface ShownError {
  readonly message: string;
  /** Empty when there is nothing to advise. */
  readonly hint: string;
  readonly exitCode: ExitCode;
}

export function showError(error: unknown): ShownError {
  const message = redactText(errorMessage(error));
  if (error instanceof CliError) return { message, hint: error.hint, exitCode: error.exitCode };
  const code = errorCode(error);
  return { message, hint: HINTS[code], exitCode: EXIT_BY_ERROR[code] };
}
