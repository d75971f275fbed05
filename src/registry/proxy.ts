/**
 * HTTP proxies from the environment. Source: golang.org/x/net/http/httpproxy, config.go, which is
 * what containerd does: `localhost` and loopback addresses are never proxied.
 */
import { BlockList, isIP } from "node:net";
import { isInBlockList, isLoopback, splitHostPort } from "./network-address.ts";

export interface ProxyOptions {
  /** URL of the proxy for http requests; empty or undefined is none. May hold a password. */
  readonly httpProxy?: string | undefined;
  readonly httpsProxy?: string | undefined;
  /** Comma list of hosts, domains, addresses and CIDR blocks to reach directly; `*` is all. */
  readonly noProxy?: string | undefined;
}

interface Exception {
  readonly matches: (host: string) => boolean;
  readonly port: string | undefined;
}

const EXCEPTIONS_MAX = 1024;

function cidrException(text: string): Exception | undefined {
  const [address = "", bits = "", ...rest] = text.split("/");
  const family = isIP(address);
  if (family === 0 || rest.length > 0 || !/^[0-9]{1,3}$/.test(bits)) return undefined;
  if (Number(bits) > (family === 4 ? 32 : 128)) return undefined;
  const list = new BlockList();
  list.addSubnet(address, Number(bits), family === 4 ? "ipv4" : "ipv6");
  return { matches: (host) => isInBlockList(list, host), port: undefined };
}

function exceptionOf(text: string): Exception | undefined {
  if (text === "*") return { matches: () => true, port: undefined };
  if (text.includes("/")) return cidrException(text);
  const { host, port } = isIP(text) === 6 ? { host: text, port: undefined } : splitHostPort(text);
  const name = host.replace(/^\[|\]$/g, "").replace(/^\*(?=\.)/, "");
  if (name === "") return undefined;
  if (isIP(name) !== 0) return { matches: (other) => other === name, port };
  const suffix = name.startsWith(".") ? name : `.${name}`;
  const exact = name.startsWith(".") ? undefined : name;
  return { matches: (other) => other === exact || other.endsWith(suffix), port };
}

/** The proxy for a URL, or undefined to go directly. */
export function proxyFor(url: URL, options: ProxyOptions): string | undefined {
  const proxy = url.protocol === "https:" ? options.httpsProxy : options.httpProxy;
  if (proxy === undefined || proxy === "") return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, "").toLowerCase();
  if (isLoopback(host)) return undefined;
  const port = url.port === "" ? (url.protocol === "https:" ? "443" : "80") : url.port;
  const exceptions = (options.noProxy ?? "").split(",").slice(0, EXCEPTIONS_MAX);
  for (const text of exceptions) {
    const exception = exceptionOf(text.trim().toLowerCase());
    if (exception === undefined) continue;
    if (exception.port !== undefined && exception.port !== port) continue;
    if (exception.matches(host)) return undefined;
  }
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(proxy) ? proxy : `http://${proxy}`;
}
