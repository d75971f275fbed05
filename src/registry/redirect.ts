/** Redirects followed by hand, so that credentials stay with the origin they belong to. */
import { DaemonError } from "../base/errors.ts";
import type { TlsSettings } from "./host-config.ts";
import { REDIRECTS_MAX, URL_CHARS_MAX } from "./limits.ts";
import { isLocalOnly } from "./network-address.ts";
import type { TransportPool, TransportRequest, TransportResponse } from "./transport.ts";

const REDIRECT_STATUSES: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

export interface FollowOptions {
  readonly signal: AbortSignal;
  /** Headers that only the first origin may see: credentials, hosts.toml's own headers. */
  readonly privateHeaders: Readonly<Record<string, string>>;
}

function malformed(from: URL, problem: string): DaemonError {
  return new DaemonError("failed-precondition", `${from.origin} redirects ${problem}`);
}

/** Throws `failed-precondition`, without quoting the address: it may hold a signature. */
export function redirectTarget(location: string | undefined, from: URL): URL {
  if (location === undefined || location === "" || location.length > URL_CHARS_MAX) {
    throw malformed(from, "to no usable address");
  }
  let target: URL;
  try {
    target = new URL(location, from);
  } catch {
    throw malformed(from, "to a malformed address");
  }
  if (target.protocol !== "https:" && target.protocol !== "http:") {
    throw malformed(from, "to something that is not HTTP");
  }
  if (target.username !== "" || target.password !== "") {
    throw malformed(from, "to an address with a password in it");
  }
  // A registry elsewhere must not aim this (root) process at the machine's own services.
  if (isLocalOnly(target.hostname) && !isLocalOnly(from.hostname)) {
    throw malformed(from, "to this machine itself");
  }
  target.hash = "";
  return target;
}

/** The registry's CAs hold for its blob store too, as in containerd; its client key does not. */
function foreignTls(tls: TlsSettings): TlsSettings {
  return tls.clients.length === 0 ? tls : { ...tls, clients: [] };
}

/** The first answer that is no redirect; `response.url` says where it came from. */
export async function requestFollowing(
  transport: TransportPool,
  request: TransportRequest,
  { signal, privateHeaders }: FollowOptions,
): Promise<TransportResponse> {
  const { method, body } = request;
  let { url } = request;
  for (let hops = 0; hops <= REDIRECTS_MAX; hops += 1) {
    const isHome = url.origin === request.url.origin;
    const response = await transport.request(
      {
        method,
        url,
        headers: isHome ? { ...request.headers, ...privateHeaders } : request.headers,
        ...(body === undefined ? {} : { body }),
        tls: isHome ? request.tls : foreignTls(request.tls),
        connectTimeoutMs: request.connectTimeoutMs,
      },
      { signal },
    );
    if (!REDIRECT_STATUSES.has(response.status)) return response;
    await response.discard();
    if (method === "POST") {
      // A form with a token in it is not sent on.
      throw malformed(url, "a token request");
    }
    url = redirectTarget(response.header("location"), url);
  }
  throw malformed(request.url, `more than ${REDIRECTS_MAX} times`);
}
