/** What went wrong below HTTP, told without addresses' secret parts. */
import { DaemonError, systemErrorName } from "../base/errors.ts";

/** Nothing is changed by trying again: a person must fix a certificate or a setting. */
const CERTIFICATE_CODES: readonly RegExp[] = [
  /^(CERT_|ERR_TLS_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_CA|ERR_OSSL_)/,
  /^ERR_SSL_.*(CERTIFICATE|UNKNOWN_CA)/,
];

/** Our own wrong use of a library: no other try helps, and the cause must be seen. */
const MISTAKE_CODE = /^(UND_ERR_INVALID_|UND_ERR_NOT_SUPPORTED|ERR_INVALID_|ERR_OUT_OF_RANGE)/;

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "refused the connection",
  ECONNRESET: "closed the connection",
  EPIPE: "closed the connection",
  ENOTFOUND: "has no address (DNS)",
  EAI_AGAIN: "has no address (DNS does not answer)",
  EHOSTUNREACH: "cannot be reached",
  ENETUNREACH: "cannot be reached",
  ETIMEDOUT: "did not accept the connection in time",
  UND_ERR_CONNECT_TIMEOUT: "did not accept the connection in time",
  UND_ERR_HEADERS_TIMEOUT: "gave no answer in time",
  UND_ERR_BODY_TIMEOUT: "stopped sending",
  UND_ERR_SOCKET: "closed the connection",
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: "sent another length than announced",
  UND_ERR_HEADERS_OVERFLOW: "sent too large a header",
};

/** The code of the error or, for several addresses tried at once, of the first one's. */
function codeOf(error: unknown): string | undefined {
  const own = systemErrorName(error);
  if (own !== undefined) return own;
  if (error instanceof AggregateError) {
    const errors: readonly unknown[] = error.errors;
    return systemErrorName(errors[0]);
  }
  return error instanceof Error && error.cause !== undefined
    ? systemErrorName(error.cause)
    : undefined;
}

/**
 * `unavailable` (worth another try), or `failed-precondition` for certificates. Only the
 * origin is named: paths and queries of blob stores hold signatures.
 */
export function transportError(error: unknown, url: URL): DaemonError {
  if (error instanceof DaemonError) return error;
  const code = codeOf(error);
  if (code === undefined || MISTAKE_CODE.test(code)) {
    return new DaemonError("internal", `request to ${url.origin} failed`, { cause: error });
  }
  if (CERTIFICATE_CODES.some((pattern) => pattern.test(code))) {
    return new DaemonError(
      "failed-precondition",
      `the certificate of ${url.origin} is not trusted or not usable (${code})`,
      { details: { errno: code } },
    );
  }
  const isProtocol = code.startsWith("HPE_") || code === "EPROTO" || code.startsWith("ERR_SSL_");
  const reason = isProtocol ? "does not speak the expected protocol" : REASONS[code];
  return new DaemonError("unavailable", `${url.origin} ${reason ?? "failed"} (${code})`, {
    details: { errno: code },
  });
}
