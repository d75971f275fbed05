/** The address that others are told, where nobody has said it. */
import { createSocket } from "node:dgram";
import { isIPv6 } from "node:net";
import { networkInterfaces } from "node:os";
import { DaemonError } from "../../base/errors.ts";
import type { Address } from "../membership/member.ts";
import { addressBytes, hostOf } from "../membership/wire.ts";
import { isAnyHost } from "./config.ts";
import type { PeerNodeConfig } from "./config.ts";

/**
 * The configured one, else the one that is listened on, else the one from which the kernel would
 * send to a seed, else the first of an interface. Throws `failed-precondition` when there is none.
 */
export async function ownAddress(
  { advertise, bind }: Pick<PeerNodeConfig, "advertise" | "bind">,
  localPort: number,
  seeds: readonly Address[],
): Promise<Address> {
  const port = advertise.port ?? localPort;
  if (advertise.host !== undefined) return { host: advertise.host, port };
  if (!isAnyHost(bind.host)) return { host: bind.host, port };
  const isFit = (host: string): boolean => bind.host === "::" || !isIPv6(host);
  for (const seed of seeds) {
    const host = isFit(seed.host) ? await sourceFor(seed) : undefined;
    if (host !== undefined) return { host, port };
  }
  const hosts = Object.values(networkInterfaces())
    .flatMap((list) => list ?? [])
    .filter(({ internal, address }) => !internal && isFit(address) && !address.startsWith("fe80"))
    .map(({ address }) => hostOf(addressBytes(address)));
  // IPv4 first: a member without IPv6 could not reach the others.
  const host = hosts.find((one) => !isIPv6(one)) ?? hosts[0];
  if (host !== undefined) return { host, port };
  throw new DaemonError(
    "failed-precondition",
    "no network interface has an address that others could reach: set the advertised address",
  );
}

/** Where packets to `seed` would come from: connecting a UDP socket sends nothing. */
async function sourceFor(seed: Address): Promise<string | undefined> {
  const socket = createSocket(isIPv6(seed.host) ? "udp6" : "udp4");
  try {
    return await new Promise<string | undefined>((resolve) => {
      socket.once("error", () => {
        resolve(undefined);
      });
      socket.connect(seed.port, seed.host, () => {
        const [host = ""] = socket.address().address.split("%");
        resolve(isAnyHost(host) ? undefined : hostOf(addressBytes(host)));
      });
    });
  } finally {
    socket.close();
  }
}
