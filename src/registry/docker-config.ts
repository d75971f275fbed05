/**
 * Docker's config.json: who we are at which registry.
 * Source: docker/cli, cli/config/configfile/file.go and credentials/file_store.go.
 */
import { DaemonError } from "../base/errors.ts";
import { DOCKER_CONFIG_BYTES_MAX } from "./limits.ts";

/** `identity` is an OAuth2 refresh token, `bearer` a token for the registry itself. */
export type Credential =
  | { readonly kind: "password"; readonly username: string; readonly password: string }
  | { readonly kind: "identity"; readonly token: string }
  | { readonly kind: "bearer"; readonly token: string };

export interface DockerConfig {
  /** By normalized host. */
  readonly auths: ReadonlyMap<string, Credential>;
  /** Helper suffix by normalized host. */
  readonly helpers: ReadonlyMap<string, string>;
  /** Helper for every other host. */
  readonly store: string | undefined;
}

export const EMPTY_DOCKER_CONFIG: DockerConfig = {
  auths: new Map(),
  helpers: new Map(),
  store: undefined,
};

/** `docker-credential-` and this is a program's name: nothing that could be a path. */
const HELPER_PATTERN = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/;
const DOCKER_HUB_NAMES: ReadonlySet<string> = new Set([
  "docker.io",
  "index.docker.io",
  "registry-1.docker.io",
  "registry.hub.docker.com",
]);

/** The key under which Docker files a host's login. */
export const DOCKER_HUB_KEY = "https://index.docker.io/v1/";

/** `https://host/v1/` and `host` are one place; all of Docker Hub's names too. */
export function normalizeAuthKey(key: string): string {
  const withoutScheme = key.replace(/^https?:\/\//i, "");
  const slash = withoutScheme.indexOf("/");
  const host = (slash < 0 ? withoutScheme : withoutScheme.slice(0, slash)).toLowerCase();
  return DOCKER_HUB_NAMES.has(host) ? "docker.io" : host;
}

type Fields = Readonly<Record<string, unknown>>;

function fieldsOf(value: unknown): Fields | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return value as Fields;
}

function text(fields: Fields, key: string): string | undefined {
  const value = Object.hasOwn(fields, key) ? fields[key] : undefined;
  return typeof value === "string" && value !== "" ? value : undefined;
}

/** The base64 of `user:password`; a user may not have a colon, a password may. */
function decodeBasic(encoded: string): { username: string; password: string } | undefined {
  const decoded = Buffer.from(encoded, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = decoded.indexOf(":");
  if (colon <= 0) return undefined;
  return { username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

function credentialOf(entry: Fields): Credential | undefined {
  const identity = text(entry, "identitytoken");
  if (identity !== undefined) return { kind: "identity", token: identity };
  const bearer = text(entry, "registrytoken");
  if (bearer !== undefined) return { kind: "bearer", token: bearer };
  const auth = text(entry, "auth");
  const decoded = auth === undefined ? undefined : decodeBasic(auth);
  if (decoded !== undefined) return { kind: "password", ...decoded };
  const username = text(entry, "username");
  const password = text(entry, "password");
  if (username === undefined || password === undefined) return undefined;
  return { kind: "password", username, password };
}

/** Throws `invalid-argument`, never quoting the file: it is full of secrets. */
export function parseDockerConfig(bytes: Uint8Array): DockerConfig {
  if (bytes.length > DOCKER_CONFIG_BYTES_MAX) {
    throw new DaemonError("invalid-argument", `docker config has ${bytes.length} bytes`);
  }
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new DaemonError("invalid-argument", "docker config is not JSON");
  }
  const root = fieldsOf(value);
  if (root === undefined) throw new DaemonError("invalid-argument", "docker config is no object");
  const auths = new Map<string, Credential>();
  for (const [key, entry] of Object.entries(fieldsOf(root["auths"]) ?? {})) {
    const fields = fieldsOf(entry);
    const credential = fields === undefined ? undefined : credentialOf(fields);
    const host = normalizeAuthKey(key);
    // An exact key wins over one with a scheme or path.
    if (credential !== undefined && (!auths.has(host) || key === host)) {
      auths.set(host, credential);
    }
  }
  const helpers = new Map<string, string>();
  for (const [key, helper] of Object.entries(fieldsOf(root["credHelpers"]) ?? {})) {
    if (typeof helper !== "string" || !HELPER_PATTERN.test(helper)) continue;
    helpers.set(normalizeAuthKey(key), helper);
  }
  const store = text(root, "credsStore");
  return {
    auths,
    helpers,
    store: store !== undefined && HELPER_PATTERN.test(store) ? store : undefined,
  };
}

/** A helper's answer to `get`. Source: docker-credential-helpers, credentials/credentials.go. */
export function parseHelperAnswer(bytes: Uint8Array): Credential | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
  const fields = fieldsOf(value);
  const secret = fields === undefined ? undefined : text(fields, "Secret");
  if (fields === undefined || secret === undefined) return undefined;
  const username = text(fields, "Username") ?? "";
  if (username === "<token>") return { kind: "identity", token: secret };
  return { kind: "password", username, password: secret };
}
