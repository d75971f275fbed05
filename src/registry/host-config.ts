/**
 * Which hosts serve a registry's name, in which order, with which certificates.
 * Source: containerd, core/remotes/docker/config/hosts.go (ConfigureHosts); where no folder says
 * otherwise a loopback registry speaks plain HTTP, as for docker.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorName, withContext } from "../base/errors.ts";
import { DEFAULT_DOMAIN } from "../oci/index.ts";
import { readSmallFile } from "./files.ts";
import type { ClientCertificateFiles, HostEntry } from "./hosts-toml.ts";
import { CERTIFICATE_FILES_MAX, HOSTS_TOML_BYTES_MAX, PEM_BYTES_MAX } from "./limits.ts";
import { isLoopback, splitHostPort } from "./network-address.ts";

export const DOCKER_HUB_HOST = "registry-1.docker.io";

/** PEM texts. `ca` is trusted besides the system's. */
export interface TlsSettings {
  readonly ca: readonly string[];
  readonly clients: readonly { readonly certificate: string; readonly key: string }[];
  readonly skipVerify: boolean;
}

export interface RegistryHost {
  /** Tried in order until one speaks: more than one only for loopback without a scheme. */
  readonly origins: readonly string[];
  /** Prefix of the API: `/v2`. */
  readonly path: string;
  readonly canPull: boolean;
  readonly canResolve: boolean;
  /** A host other than the registry itself is told the registry's name (`?ns=`). */
  readonly isMirror: boolean;
  readonly headers: readonly (readonly [string, string])[];
  readonly tls: TlsSettings;
  readonly dialTimeoutMs: number | undefined;
}

const NO_TLS_SETTINGS: TlsSettings = { ca: [], clients: [], skipVerify: false };

/** The folder names of a domain: `host_port_` first, as containerd. */
function folderNames(domain: string): readonly string[] {
  const { host, port } = splitHostPort(domain);
  return port === undefined ? [domain, "_default"] : [`${host}_${port}_`, domain, "_default"];
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    const name = systemErrorName(error);
    if (name === "ENOENT" || name === "ENOTDIR") return false;
    throw withContext(error, `cannot look at ${path}`, "failed-precondition");
  }
}

async function findFolder(
  domain: string,
  hostsDirs: readonly string[],
): Promise<string | undefined> {
  for (const root of hostsDirs) {
    for (const name of folderNames(domain)) {
      const folder = join(root, name);
      if (await isFolder(folder)) return folder;
    }
  }
  return undefined;
}

/** Docker's layout, where there is no hosts.toml: *.crt are CAs, *.cert with *.key are ours. */
async function certificateFolderEntry(folder: string): Promise<HostEntry> {
  const names = (await readdir(folder)).sort().slice(0, CERTIFICATE_FILES_MAX);
  const clientCertificates: ClientCertificateFiles[] = names
    .filter((name) => name.endsWith(".cert"))
    .map((name) => ({
      certificate: join(folder, name),
      key: join(folder, `${name.slice(0, -".cert".length)}.key`),
    }));
  return {
    origin: undefined,
    path: "/v2",
    capabilities: new Set(["pull", "resolve", "push", "referrers"]),
    caFiles: names.filter((name) => name.endsWith(".crt")).map((name) => join(folder, name)),
    clientCertificates,
    skipVerify: undefined,
    headers: [],
    dialTimeoutMs: undefined,
  };
}

async function loadEntries(folder: string): Promise<readonly HostEntry[]> {
  const path = join(folder, "hosts.toml");
  let text: string;
  try {
    text = (await readSmallFile(path, HOSTS_TOML_BYTES_MAX)).toString("utf8");
  } catch (error) {
    if (systemErrorName(error) !== "ENOENT") throw withContext(error, `cannot read ${path}`);
    return [await certificateFolderEntry(folder)];
  }
  // Loaded only where there is such a file: the parser costs memory.
  const { parseHostsToml } = await import("./hosts-toml.ts");
  try {
    return parseHostsToml(text, { baseDir: folder });
  } catch (error) {
    throw withContext(error, path);
  }
}

async function loadPem(path: string): Promise<string> {
  try {
    return (await readSmallFile(path, PEM_BYTES_MAX)).toString("latin1");
  } catch (error) {
    throw withContext(error, `cannot read ${path}`, "failed-precondition");
  }
}

async function loadTls(entry: HostEntry): Promise<TlsSettings> {
  return {
    ca: await Promise.all(entry.caFiles.map((path) => loadPem(path))),
    clients: await Promise.all(
      entry.clientCertificates.map(async ({ certificate, key }) => ({
        certificate: await loadPem(certificate),
        key: await loadPem(key),
      })),
    ),
    skipVerify: entry.skipVerify ?? false,
  };
}

/** The registry's own address where no file names one. */
function defaultOrigins(
  domain: string,
  tls: TlsSettings,
): { readonly origins: readonly string[]; readonly tls: TlsSettings } {
  if (domain === DEFAULT_DOMAIN) return { origins: [`https://${DOCKER_HUB_HOST}`], tls };
  const { host, port } = splitHostPort(domain);
  const isTlsConfigured = tls.ca.length > 0 || tls.clients.length > 0 || tls.skipVerify;
  if (!isLoopback(host) || isTlsConfigured || port === "443") {
    return { origins: [`https://${domain}`], tls };
  }
  if (port === "80") return { origins: [`http://${domain}`], tls };
  // Nobody else can answer on loopback, so its certificate is not checked, as docker.
  return {
    origins: [`http://${domain}`, `https://${domain}`],
    tls: { ...tls, skipVerify: true },
  };
}

function isSameRegistry(origin: string, domain: string): boolean {
  const { host } = new URL(origin);
  return host === domain.toLowerCase() || (domain === DEFAULT_DOMAIN && host === DOCKER_HUB_HOST);
}

async function toHost(entry: HostEntry, domain: string): Promise<RegistryHost> {
  const configured = await loadTls(entry);
  const place =
    entry.origin === undefined
      ? defaultOrigins(domain, configured)
      : { origins: [entry.origin], tls: configured };
  return {
    ...place,
    path: entry.path,
    canPull: entry.capabilities.has("pull"),
    canResolve: entry.capabilities.has("resolve"),
    isMirror: entry.origin !== undefined && !isSameRegistry(entry.origin, domain),
    headers: entry.headers,
    dialTimeoutMs: entry.dialTimeoutMs,
  };
}

/**
 * The hosts of a domain, mirrors first, the registry itself last. `hostsDirs` are certs.d
 * folders (containerd's `config_path`); the first that has a folder for the domain counts.
 * Throws `failed-precondition` naming the file that is malformed.
 */
export async function loadHosts(
  domain: string,
  options: { readonly hostsDirs: readonly string[] },
): Promise<readonly RegistryHost[]> {
  const folder = await findFolder(domain, options.hostsDirs);
  if (folder === undefined) {
    return [
      {
        ...defaultOrigins(domain, NO_TLS_SETTINGS),
        path: "/v2",
        canPull: true,
        canResolve: true,
        isMirror: false,
        headers: [],
        dialTimeoutMs: undefined,
      },
    ];
  }
  const entries = await loadEntries(folder);
  return Promise.all(entries.map((entry) => toHost(entry, domain)));
}
