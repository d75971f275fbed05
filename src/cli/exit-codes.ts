/** Exit codes, one for each thing that a script would do differently. See docs/cli.md. */
import type { ErrorCode } from "../base/errors.ts";

export const EXIT = {
  ok: 0,
  failure: 1,
  /** The command line, the configuration or the image is wrong: trying again changes nothing. */
  usage: 2,
  notFound: 3,
  /** No daemon answers at the state folder. */
  notRunning: 4,
  /** Not root, or the registry refuses the credentials. */
  denied: 5,
  /** Interrupted before it was done (128 + SIGINT, as shells count). */
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** Total, so that a new error code does not compile until it has an exit code. */
export const EXIT_BY_ERROR: Readonly<Record<ErrorCode, ExitCode>> = {
  aborted: EXIT.failure,
  "already-exists": EXIT.failure,
  canceled: EXIT.interrupted,
  "data-loss": EXIT.failure,
  "deadline-exceeded": EXIT.failure,
  "failed-precondition": EXIT.failure,
  internal: EXIT.failure,
  "invalid-argument": EXIT.usage,
  "not-found": EXIT.notFound,
  "out-of-range": EXIT.failure,
  "permission-denied": EXIT.denied,
  "resource-exhausted": EXIT.failure,
  unauthenticated: EXIT.denied,
  unavailable: EXIT.failure,
  unimplemented: EXIT.failure,
};
