/** Which hosts are this machine itself, by name or literal address. */
import { BlockList, isIP } from "node:net";

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet("127.0.0.0", 8, "ipv4");
LOOPBACK.addAddress("::1", "ipv6");

/** This machine, its link, and its cloud's metadata service. */
const LOCAL = new BlockList();
LOCAL.addSubnet("127.0.0.0", 8, "ipv4");
LOCAL.addSubnet("0.0.0.0", 8, "ipv4");
LOCAL.addSubnet("169.254.0.0", 16, "ipv4");
LOCAL.addAddress("::1", "ipv6");
LOCAL.addAddress("::", "ipv6");
LOCAL.addSubnet("fe80::", 10, "ipv6");

export function splitHostPort(authority: string): { host: string; port: string | undefined } {
  const match = /^(\[[^\]]*\]|[^:]*)(?::([0-9]+))?$/.exec(authority);
  return { host: match?.[1] ?? authority, port: match?.[2] };
}

function bare(host: string): string {
  const unbracketed = host.startsWith("[") && host.endsWith("]") ? host.slice(1, -1) : host;
  return unbracketed.toLowerCase();
}

function isIn(list: BlockList, host: string): boolean {
  const address = bare(host);
  const family = isIP(address);
  if (family === 0) return false;
  return list.check(address, family === 4 ? "ipv4" : "ipv6");
}

/** `localhost`, 127.0.0.0/8 and ::1. Source: docker's insecure-registry default. */
export function isLoopback(host: string): boolean {
  return bare(host) === "localhost" || isIn(LOOPBACK, host);
}

/** Places to which a registry elsewhere has no business sending us. */
export function isLocalOnly(host: string): boolean {
  return isLoopback(host) || bare(host).endsWith(".localhost") || isIn(LOCAL, host);
}

export { isIn as isInBlockList };
