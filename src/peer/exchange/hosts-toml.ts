/**
 * Texts for programs that read a node's `/v2/`: certificates in PEM and containerd's hosts.toml.
 * Source: containerd docs/hosts.md.
 */
import type { ClientCertificate } from "../transport/identity.ts";

/** Certificate, key and authorities in one text, in this order, as curl's --cert takes it. */
export function clientCertificatePem(client: ClientCertificate): string {
  return client.certificate + client.privateKey + client.authorities.join("");
}

export interface HostsTomlOptions {
  /** `https://host:port` of a node, by a name or address that its certificate has. */
  readonly url: string;
  /** The registry that the mirror stands in for, where misses go: `https://registry.example`. */
  readonly upstream?: string;
}

/** For containerd on another machine: mutual TLS with the files of `faasnet peers cert`. */
export function clientHostsToml(
  options: HostsTomlOptions & {
    readonly files: { readonly ca: string; readonly cert: string; readonly key: string };
  },
): string {
  const { ca, cert, key } = options.files;
  return hostsToml(options, [`ca = ${quoted(ca)}`, `client = [[${quoted(cert)}, ${quoted(key)}]]`]);
}

/** For containerd on this machine: the loopback mirror, without TLS. */
export function mirrorHostsToml(options: HostsTomlOptions): string {
  return hostsToml(options, []);
}

function hostsToml({ url, upstream }: HostsTomlOptions, lines: readonly string[]): string {
  const server = upstream === undefined ? [] : [`server = ${quoted(upstream)}`, ""];
  const host = [`[host.${quoted(url)}]`, `capabilities = ["pull", "resolve"]`, ...lines];
  return [...server, host[0], ...host.slice(1).map((line) => `  ${line}`), ""].join("\n");
}

/** A basic string of TOML v1.0. */
function quoted(text: string): string {
  return JSON.stringify(text).replaceAll("\u007f", "\\u007f");
}
