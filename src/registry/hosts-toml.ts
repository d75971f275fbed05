/**
 * containerd's hosts.toml. Source: containerd, docs/hosts.md and core/remotes/docker/config/
 * hosts.go (parseHostsFile): entries in the order of the file, the file's top level last.
 */
import { isAbsolute, join } from "node:path";
import { parse } from "smol-toml";
import { DaemonError } from "../base/errors.ts";
import { CERTIFICATE_FILES_MAX, HOSTS_MAX, HOSTS_TOML_BYTES_MAX } from "./limits.ts";

export type HostCapability = "pull" | "resolve" | "push" | "referrers";

/** One `[host."…"]` section, or the top level. Paths are absolute. */
export interface HostEntry {
  /** `https://mirror.example:8443`; undefined is "the registry itself" (no `server`). */
  readonly origin: string | undefined;
  /** Begins with a slash unless empty; the API's paths are appended: `/v2`, `/proxy/v2`. */
  readonly path: string;
  readonly capabilities: ReadonlySet<HostCapability>;
  readonly caFiles: readonly string[];
  readonly clientCertificates: readonly ClientCertificateFiles[];
  /** Undefined where the file says nothing. */
  readonly skipVerify: boolean | undefined;
  /** May hold secrets. */
  readonly headers: readonly (readonly [string, string])[];
  readonly dialTimeoutMs: number | undefined;
}

export interface ClientCertificateFiles {
  readonly certificate: string;
  /** The certificate's own file where none is given. */
  readonly key: string;
}

const CAPABILITIES: readonly HostCapability[] = ["pull", "resolve", "push", "referrers"];
const HEADER_NAME_PATTERN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$/;
const HEADER_VALUE_PATTERN = /^[\t\x20-\x7e\x80-\xff]{0,8192}$/;

type Table = Readonly<Record<string, unknown>>;

function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function malformed(problem: string): DaemonError {
  return new DaemonError("failed-precondition", problem);
}

function own(table: Table, key: string): unknown {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

/** `https://` is added where no scheme is given, and `/v2` unless override_path says not to. */
function parseServer(
  server: string,
  overridePath: boolean,
): { readonly origin: string; readonly path: string } {
  const text = /^https?:\/\//i.test(server) ? server : `https://${server}`;
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw malformed(`"${server.slice(0, 100)}" is not a registry address`);
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw malformed(`the address of ${url.host} may hold only scheme, host, port and path`);
  }
  const path = url.pathname.replace(/\/{2,}/g, "/").replace(/\/+$/, "");
  const isWhole = overridePath || path.endsWith("/v2");
  return { origin: url.origin, path: isWhole ? path : `${path}/v2` };
}

function capabilitiesOf(value: unknown): ReadonlySet<HostCapability> {
  if (value === undefined) return new Set(CAPABILITIES);
  if (!Array.isArray(value)) throw malformed("capabilities is not a list");
  const found = new Set<HostCapability>();
  for (const text of value.slice(0, 64)) {
    const capability = CAPABILITIES.find((one) => one === String(text).toLowerCase());
    if (capability === undefined) {
      throw malformed(`unknown capability "${String(text).slice(0, 40)}"`);
    }
    found.add(capability);
  }
  return found.size === 0 ? new Set(CAPABILITIES) : found;
}

function fileList(value: unknown, key: string): readonly (string | readonly string[])[] {
  if (value === undefined) return [];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  if (list.length > CERTIFICATE_FILES_MAX) throw malformed(`${key} lists too many files`);
  return list.map((item) => {
    if (typeof item === "string" && item !== "") return item;
    if (Array.isArray(item) && item.every((part) => typeof part === "string")) return item;
    throw malformed(`${key} is neither a path nor a list of paths`);
  });
}

function absolute(path: string, baseDir: string): string {
  if (path.includes("\0")) throw malformed("a path holds a zero byte");
  return isAbsolute(path) ? path : join(baseDir, path);
}

function caFilesOf(value: unknown, baseDir: string): string[] {
  return fileList(value, "ca").map((item) => {
    if (typeof item !== "string") throw malformed("ca is a list of lists");
    return absolute(item, baseDir);
  });
}

function clientsOf(value: unknown, baseDir: string): ClientCertificateFiles[] {
  return fileList(value, "client").map((item) => {
    const [certificate, key, ...rest] = typeof item === "string" ? [item] : item;
    if (certificate === undefined || certificate === "" || rest.length > 0) {
      throw malformed("client must be a path or a pair of paths");
    }
    const certificatePath = absolute(certificate, baseDir);
    const hasKey = key !== undefined && key !== "";
    return {
      certificate: certificatePath,
      key: hasKey ? absolute(key, baseDir) : certificatePath,
    };
  });
}

function headersOf(value: unknown): (readonly [string, string])[] {
  if (value === undefined) return [];
  if (!isTable(value)) throw malformed("header is not a table");
  return Object.entries(value).flatMap(([name, given]) => {
    const values: readonly unknown[] = Array.isArray(given) ? given : [given];
    return values.map((text) => {
      const isSound =
        HEADER_NAME_PATTERN.test(name) &&
        typeof text === "string" &&
        HEADER_VALUE_PATTERN.test(text);
      // The value is not quoted: it may be a secret.
      if (!isSound) throw malformed(`header "${name.slice(0, 40)}" is malformed`);
      return [name.toLowerCase(), text] as const;
    });
  });
}

/** Go durations as people write them: `500ms`, `3s`, `1m`. */
function durationMs(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  const match = typeof value === "string" ? /^([0-9]{1,7})(ms|s|m)$/.exec(value) : null;
  if (match === null) throw malformed("dial_timeout is not a duration such as 3s");
  const unit = match[2] === "ms" ? 1 : match[2] === "s" ? 1000 : 60_000;
  return Number(match[1]) * unit;
}

function optionalBoolean(table: Table, key: string): boolean | undefined {
  const value = own(table, key);
  if (value === undefined || typeof value === "boolean") return value;
  throw malformed(`${key} is not true or false`);
}

function entryOf(server: string | undefined, table: Table, baseDir: string): HostEntry {
  const overridePath = optionalBoolean(table, "override_path") ?? false;
  const place =
    server === undefined || server === ""
      ? { origin: undefined, path: "/v2" }
      : parseServer(server, overridePath);
  return {
    ...place,
    capabilities: capabilitiesOf(own(table, "capabilities")),
    caFiles: caFilesOf(own(table, "ca"), baseDir),
    clientCertificates: clientsOf(own(table, "client"), baseDir),
    skipVerify: optionalBoolean(table, "skip_verify"),
    headers: headersOf(own(table, "header")),
    dialTimeoutMs: durationMs(own(table, "dial_timeout")),
  };
}

/**
 * The hosts in the order to try them; the last is the registry itself (`server`, or the name in
 * the reference). Throws `failed-precondition`; the caller adds the file's name.
 */
export function parseHostsToml(
  text: string,
  options: { readonly baseDir: string },
): readonly HostEntry[] {
  if (text.length > HOSTS_TOML_BYTES_MAX) throw malformed(`longer than ${HOSTS_TOML_BYTES_MAX}`);
  let root: Table;
  try {
    root = parse(text);
  } catch (error) {
    // Only the first line: the rest quotes the file.
    const line = error instanceof Error ? (error.message.split("\n")[0] ?? "") : "";
    throw malformed(`not TOML: ${line.slice(0, 200)}`);
  }
  const hosts = own(root, "host") ?? {};
  if (!isTable(hosts)) throw malformed("host is not a table");
  const entries = Object.entries(hosts);
  if (entries.length > HOSTS_MAX) throw malformed(`more than ${HOSTS_MAX} hosts`);
  const server = own(root, "server");
  if (server !== undefined && typeof server !== "string") throw malformed("server is not a string");
  const mirrors = entries.map(([name, table]) => {
    if (!isTable(table)) throw malformed(`host "${name.slice(0, 100)}" is not a table`);
    return entryOf(name, table, options.baseDir);
  });
  return [...mirrors, entryOf(server, root, options.baseDir)];
}
