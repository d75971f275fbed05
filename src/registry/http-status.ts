/** HTTP statuses as our errors. Source: distribution-spec v1.1, "Error Codes". */
import type { Clock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import type { ErrorCode } from "../base/errors.ts";
import { ERROR_BODY_BYTES_MAX } from "./limits.ts";
import { retryAfterMs } from "./retry.ts";
import type { TransportResponse } from "./transport.ts";

export function codeOfStatus(status: number): ErrorCode {
  if (status === 401) return "unauthenticated";
  if (status === 403) return "permission-denied";
  if (status === 404 || status === 410) return "not-found";
  if (status === 416) return "out-of-range";
  if (status === 429) return "resource-exhausted";
  if (status === 408 || status === 425 || status >= 500) return "unavailable";
  return "failed-precondition";
}

/** 501 and 505 will not change; every other 5xx may. */
const PERMANENT_STATUSES: ReadonlySet<number> = new Set([501, 505]);

/**
 * The codes of an error document (`MANIFEST_UNKNOWN`). Its messages are left out: they come from
 * the other side and may echo what we sent.
 */
export function errorCodesOf(bytes: Uint8Array): readonly string[] {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return [];
  }
  if (typeof value !== "object" || value === null || !("errors" in value)) return [];
  if (!Array.isArray(value.errors)) return [];
  const errors: readonly unknown[] = value.errors.slice(0, 4);
  return errors.flatMap((error) => {
    if (typeof error !== "object" || error === null || !("code" in error)) return [];
    return typeof error.code === "string" && /^[A-Z_]{1,64}$/.test(error.code) ? [error.code] : [];
  });
}

/**
 * Consumes a refused answer and says what it means: `what` is the object asked for.
 * `details.status` and, where the server names it, `details.retryAfterMs`.
 */
export async function statusError(
  response: TransportResponse,
  what: string,
  clock: Clock,
): Promise<DaemonError> {
  let codes: readonly string[] = [];
  try {
    codes = errorCodesOf(await response.read(ERROR_BODY_BYTES_MAX, clock));
  } catch {
    // The status says enough.
    response.destroy();
  }
  const { status } = response;
  const code = PERMANENT_STATUSES.has(status) ? "failed-precondition" : codeOfStatus(status);
  const wait = retryAfterMs(response.header("retry-after"), clock.wallNs());
  const said = codes.length === 0 ? "" : ` (${codes.join(", ")})`;
  return new DaemonError(code, `${response.url.origin} answered ${status}${said} for ${what}`, {
    details: { status, ...(wait === undefined ? {} : { retryAfterMs: wait }) },
  });
}

/** The waiting time that a server asked for, from an error made here. */
export function requestedWaitMs(error: unknown): number | undefined {
  if (!(error instanceof DaemonError)) return undefined;
  const wait = error.details["retryAfterMs"];
  return typeof wait === "number" ? wait : undefined;
}
