/**
 * Registry tokens. Source: distribution, docs/spec/auth/token.md (GET) and oauth.md (POST with a
 * refresh token).
 */
import type { Clock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import type { Credential } from "./docker-config.ts";
import type { TlsSettings } from "./host-config.ts";
import { statusError } from "./http-status.ts";
import {
  TOKEN_BODY_BYTES_MAX,
  TOKEN_CHARS_MAX,
  TOKEN_LIFE_DEFAULT_MS,
  TOKEN_LIFE_MAX_MS,
  URL_CHARS_MAX,
} from "./limits.ts";
import { isLocalOnly } from "./network-address.ts";
import { requestFollowing } from "./redirect.ts";
import type { TransportPool } from "./transport.ts";

export interface TokenRequest {
  /** As the registry named it. */
  readonly realm: string;
  readonly service: string | undefined;
  readonly scope: string;
  readonly credential: Credential | undefined;
  /** Where the challenge came from. */
  readonly registry: URL;
  readonly tls: TlsSettings;
}

export interface Token {
  readonly value: string;
  readonly lifeMs: number;
}

const CLIENT_ID = "faasnet-snapshotter";

/** A registry may not send a password in the clear, nor to this machine, by its realm. */
export function checkRealm(realm: string, registry: URL, hasCredential: boolean): URL {
  const refuse = (problem: string): DaemonError =>
    new DaemonError("failed-precondition", `${registry.origin} names a token server ${problem}`);
  let url: URL;
  try {
    url = new URL(realm.slice(0, URL_CHARS_MAX), registry);
  } catch {
    throw refuse("with a malformed address");
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") throw refuse("that is not HTTP");
  if (url.username !== "" || url.password !== "") throw refuse("with a password in its address");
  if (hasCredential && registry.protocol === "https:" && url.protocol === "http:") {
    throw refuse("without TLS; the login is not sent there");
  }
  if (isLocalOnly(url.hostname) && !isLocalOnly(registry.hostname)) {
    throw refuse("on this machine itself");
  }
  url.hash = "";
  return url;
}

function parseToken(bytes: Uint8Array, origin: string): Token {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    value = undefined;
  }
  const fields = typeof value === "object" && value !== null ? value : {};
  const read = (key: string): unknown =>
    Object.hasOwn(fields, key) ? Reflect.get(fields, key) : undefined;
  const token = [read("token"), read("access_token")].find(
    (one): one is string => typeof one === "string" && one !== "",
  );
  // Anything else in a header would be an injection, and no token holds it.
  if (token === undefined || token.length > TOKEN_CHARS_MAX || !/^[\x21-\x7e]+$/.test(token)) {
    throw new DaemonError("unauthenticated", `${origin} gave no usable token`);
  }
  const seconds = read("expires_in");
  const isKnown = typeof seconds === "number" && Number.isFinite(seconds) && seconds > 0;
  const lifeMs = isKnown ? seconds * 1000 : TOKEN_LIFE_DEFAULT_MS;
  return { value: token, lifeMs: Math.min(lifeMs, TOKEN_LIFE_MAX_MS) };
}

export function basicHeader(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}

/** Throws `unauthenticated` or `permission-denied` when refused, `unavailable` when it may pass. */
export async function fetchToken(
  request: TokenRequest,
  deps: { readonly transport: TransportPool; readonly clock: Clock },
  { signal }: { readonly signal: AbortSignal },
): Promise<Token> {
  const { credential, service, scope } = request;
  const url = checkRealm(request.realm, request.registry, credential !== undefined);
  const isRefresh = credential?.kind === "identity";
  const fields: [string, string][] = [["scope", scope]];
  if (service !== undefined && service !== "") fields.push(["service", service]);
  if (isRefresh) {
    fields.push(["grant_type", "refresh_token"]);
    fields.push(["refresh_token", credential.token], ["client_id", CLIENT_ID]);
  } else if (credential?.kind === "password") fields.push(["account", credential.username]);
  const form = new URLSearchParams(fields);
  if (!isRefresh) for (const [name, value] of fields) url.searchParams.set(name, value);
  const privateHeaders: Record<string, string> =
    credential?.kind === "password"
      ? { authorization: basicHeader(credential.username, credential.password) }
      : {};
  const response = await requestFollowing(
    deps.transport,
    {
      method: isRefresh ? "POST" : "GET",
      url,
      headers: isRefresh ? { "content-type": "application/x-www-form-urlencoded" } : {},
      ...(isRefresh ? { body: form.toString() } : {}),
      tls: request.tls,
    },
    { signal, privateHeaders },
  );
  if (response.status !== 200) {
    const error = await statusError(response, "a token", deps.clock);
    // Many token servers say 400 or 404 where they mean that the login is wrong.
    const isRefusal = error.code === "failed-precondition" || error.code === "not-found";
    throw isRefusal
      ? new DaemonError("unauthenticated", error.message, { details: error.details })
      : error;
  }
  return parseToken(await response.read(TOKEN_BODY_BYTES_MAX, deps.clock), url.origin);
}
