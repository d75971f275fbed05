/**
 * Where an image may come from, from what containerd's content store remembers: host and
 * repository, but not the port (`localhost:5000/x` is labelled `…source.localhost=x`). Pure.
 */
import { isDomain, isRepository, tryParseReference } from "../oci/index.ts";
import { LABEL_DISTRIBUTION_SOURCE } from "./labels.ts";
import { SOURCE_CANDIDATES_MAX } from "./limits.ts";
import type { Labels } from "./snapshot-info.ts";

export interface DistributionSource {
  readonly hostname: string;
  readonly repository: string;
}

/** Source: containerd core/remotes/docker, AppendDistributionSourceLabel. */
export function distributionSources(labels: Labels): DistributionSource[] {
  const sources: DistributionSource[] = [];
  for (const [key, value] of labels) {
    if (!key.startsWith(LABEL_DISTRIBUTION_SOURCE)) continue;
    const hostname = key.slice(LABEL_DISTRIBUTION_SOURCE.length);
    for (const repository of value.split(",")) {
      if (hostname !== "" && isRepository(repository)) sources.push({ hostname, repository });
    }
  }
  return sources;
}

export interface KnownHosts {
  /** Names of the namespace's image records. */
  readonly imageNames: readonly string[];
  /** `host[:port]` of the registries in our own configuration. */
  readonly configured: readonly string[];
  /** Names of the folders in certs.d: `host`, `host:port` or `host_port_`. */
  readonly certsFolders: readonly string[];
}

/** A URL's hostname has no brackets; a reference's domain needs them. */
function domainOf(hostname: string): string {
  return hostname.includes(":") ? `[${hostname}]` : hostname;
}

function portOf(domain: string): string | undefined {
  return /:(\d{1,5})$/.exec(domain)?.[1];
}

function withoutPort(domain: string): string {
  return domain.replace(/:\d{1,5}$/, "");
}

/** Source: containerd docs/hosts.md: `:` may be written `_` where a folder name cannot hold it. */
function certsDomain(folder: string): string {
  return folder.replace(/_(\d{1,5})_$/, ":$1");
}

/**
 * `host[:port]/repository`, best first: as an image record of the same repository says, then as
 * we are configured, then as certs.d has it, then without a port.
 */
export function sourceCandidates(
  sources: readonly DistributionSource[],
  known: KnownHosts,
): string[] {
  const references = known.imageNames.flatMap((name) => tryParseReference(name) ?? []);
  const candidates = new Set<string>();
  for (const { hostname, repository } of sources) {
    const domain = domainOf(hostname);
    const recorded = references
      .filter((one) => one.repository === repository && withoutPort(one.domain) === domain)
      .map((one) => one.domain);
    const configured = [...known.configured, ...known.certsFolders.map(certsDomain)].filter(
      (one) => withoutPort(one) === domain && portOf(one) !== undefined,
    );
    for (const one of [...recorded, ...configured, domain]) {
      if (isDomain(one)) candidates.add(`${one}/${repository}`);
    }
  }
  return [...candidates].slice(0, SOURCE_CANDIDATES_MAX);
}
