/** Logins of the fake registry: none, basic, or tokens from its own token server at `/token`. */
import type { AccessRecord } from "./fake-registry.ts";

export type FakeAuth =
  { readonly kind: "basic"; readonly username: string; readonly password: string } | FakeTokenAuth;

export interface FakeTokenAuth {
  readonly kind: "token";
  /** Undefined: tokens for anybody. */
  readonly username?: string;
  readonly password?: string;
  readonly refreshToken?: string;
  readonly expiresInSeconds?: number;
  /** Instead of the registry's own `/token`. */
  readonly realm?: string;
  /** Tokens given so far; a test clears `valid` to revoke them. */
  readonly issued: string[];
  readonly valid: Set<string>;
}

export function tokenAuth(options: Partial<FakeTokenAuth> = {}): FakeTokenAuth {
  return { kind: "token", issued: [], valid: new Set(), ...options };
}

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

function basic(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

function json(status: number, value: unknown): Answer {
  return {
    status,
    headers: { "content-type": "application/json" },
    body: Buffer.from(JSON.stringify(value)),
  };
}

export function answerToken(
  auth: FakeAuth | undefined,
  record: AccessRecord,
  url: URL,
): Answer | undefined {
  if (auth?.kind !== "token" || url.pathname !== "/token") return undefined;
  const form = new URLSearchParams(record.body);
  if (record.method === "POST") {
    if (auth.refreshToken === undefined || form.get("refresh_token") !== auth.refreshToken) {
      return json(401, { errors: [{ code: "UNAUTHORIZED" }] });
    }
  } else if (auth.username !== undefined) {
    const wanted = basic(auth.username, auth.password ?? "");
    if (record.authorization !== wanted) return json(401, { errors: [{ code: "UNAUTHORIZED" }] });
  }
  const scope = (record.method === "POST" ? form : url.searchParams).get("scope") ?? "";
  const token = `token-${auth.issued.length}-${Buffer.from(scope).toString("base64url")}`;
  auth.issued.push(token);
  auth.valid.add(token);
  return json(200, {
    [record.method === "POST" ? "access_token" : "token"]: token,
    ...(auth.expiresInSeconds === undefined ? {} : { expires_in: auth.expiresInSeconds }),
  });
}

/** Undefined when the request may pass. */
export function checkAuthorization(
  auth: FakeAuth | undefined,
  record: AccessRecord,
  url: URL,
  origin: string,
): Answer | undefined {
  if (auth === undefined) return undefined;
  const refusal = json(401, {
    errors: [{ code: "UNAUTHORIZED", message: "authentication required" }],
  });
  if (auth.kind === "basic") {
    if (record.authorization === basic(auth.username, auth.password)) return undefined;
    return {
      ...refusal,
      headers: { ...refusal.headers, "www-authenticate": 'Basic realm="fake"' },
    };
  }
  const repository = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(url.pathname)?.[1];
  const scope = repository === undefined ? undefined : `repository:${repository}:pull`;
  const token = record.authorization?.replace(/^Bearer /, "") ?? "";
  const granted = Buffer.from(token.split("-").slice(2).join("-"), "base64url").toString();
  if (auth.valid.has(token) && (scope === undefined || granted === scope)) return undefined;
  const challenge = [
    `realm="${auth.realm ?? `${origin}/token`}"`,
    'service="fake"',
    ...(scope === undefined ? [] : [`scope="${scope}"`]),
  ].join(",");
  return { ...refusal, headers: { ...refusal.headers, "www-authenticate": `Bearer ${challenge}` } };
}
