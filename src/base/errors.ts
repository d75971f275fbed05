/** The one error class of the project, with containerd's errdefs names as codes. */
import { inspect } from "node:util";

/** Source: containerd `errdefs`, the classes that map to a gRPC status. */
export type ErrorCode =
  | "aborted"
  | "already-exists"
  | "canceled"
  | "data-loss"
  | "deadline-exceeded"
  | "failed-precondition"
  | "internal"
  | "invalid-argument"
  | "not-found"
  | "out-of-range"
  | "permission-denied"
  | "resource-exhausted"
  | "unauthenticated"
  | "unavailable"
  | "unimplemented";

/** Whether the same request may succeed later without anybody changing anything. */
export const RETRYABLE: Readonly<Record<ErrorCode, boolean>> = {
  aborted: true,
  "already-exists": false,
  canceled: false,
  "data-loss": false,
  "deadline-exceeded": true,
  "failed-precondition": false,
  internal: false,
  "invalid-argument": false,
  "not-found": false,
  "out-of-range": false,
  "permission-denied": false,
  "resource-exhausted": true,
  unauthenticated: false,
  unavailable: true,
  unimplemented: false,
};

export type ErrorDetails = Readonly<Record<string, string | number | boolean>>;

export interface DaemonErrorOptions {
  readonly cause?: unknown;
  readonly details?: ErrorDetails;
}

/**
 * What failed, on which object, with the number; lower case, no trailing stop.
 * Context is added by `cause`, once per module boundary.
 */
export class DaemonError extends Error {
  readonly code: ErrorCode;
  readonly details: ErrorDetails;

  constructor(code: ErrorCode, message: string, options: DaemonErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "DaemonError";
    this.code = code;
    this.details = options.details ?? {};
  }
}

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(RETRYABLE, value);
}

/** The code of any thrown value: ours, an aborted signal's, else `internal`. */
export function errorCode(error: unknown): ErrorCode {
  if (error instanceof DaemonError) return error.code;
  if (isDiskFull(error)) return "resource-exhausted";
  if (error instanceof Error && error.name === "AbortError") return "canceled";
  if (error instanceof Error && error.name === "TimeoutError") return "deadline-exceeded";
  return "internal";
}

/** Causes followed by errorMessage: a chain may be circular. */
const CAUSE_DEPTH_MAX = 8;
/** Members of an AggregateError that errorMessage names. */
const AGGREGATE_ERRORS_MAX = 4;

/** The message with those of its causes, joined by ": ", for a log line or a user. */
export function errorMessage(error: unknown): string {
  return messageOf(error, 0);
}

function messageOf(error: unknown, depth: number): string {
  if (depth >= CAUSE_DEPTH_MAX) return "";
  if (!(error instanceof Error)) return typeof error === "string" ? error : inspect(error);
  const parts = [error.message];
  // Node's connection attempts to several addresses have no message of their own.
  if (error instanceof AggregateError) {
    const members = error.errors.slice(0, AGGREGATE_ERRORS_MAX);
    parts.push(members.map((member) => messageOf(member, depth + 1)).join("; "));
  }
  if (error.cause !== undefined && error.cause !== null) {
    parts.push(messageOf(error.cause, depth + 1));
  }
  const texts = parts.filter((text) => text !== "");
  if (texts.length === 0) return error.name;
  // A wrapper often repeats what it wraps.
  return texts.filter((text, index) => text !== texts[index - 1]).join(": ");
}

/** The errno name of a system error (`ENOENT`), or undefined. */
export function systemErrorName(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

/** Whether the error, or what caused it, is a file system without room (or quota). */
export function isDiskFull(error: unknown): boolean {
  let cause = error;
  for (let depth = 0; depth < CAUSE_DEPTH_MAX && cause instanceof Error; depth += 1) {
    const name = systemErrorName(cause);
    if (name === "ENOSPC" || name === "EDQUOT") return true;
    cause = cause.cause;
  }
  return false;
}

/** Wraps a thrown value in a DaemonError that says what was being done; keeps its code. */
export function withContext(error: unknown, message: string, code?: ErrorCode): DaemonError {
  return new DaemonError(code ?? errorCode(error), message, { cause: error });
}

/** A programmer error: ends the request with `internal`. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new DaemonError("internal", `assertion failed: ${message}`);
}
