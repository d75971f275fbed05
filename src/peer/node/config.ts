/** What a node has to be told. docs/peers.md says what each setting costs. */
import { DaemonError } from "../../base/errors.ts";
import { WIRE_VERSIONS } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";
import { checkConfig, MEMBERSHIP_PRESETS } from "../membership/config.ts";
import type { MembershipConfig } from "../membership/config.ts";
import type { Address } from "../membership/member.ts";
import { addressBytes, checkMemberId, hostOf } from "../membership/wire.ts";
import { encodeMeta } from "./member-meta.ts";

/** Plain data: it is posted to the worker. */
export interface PeerNodeConfig {
  /** Unique in the cluster; the host's name, say. */
  readonly id: string;
  /** Members of one zone feed each other first. Empty: none. */
  readonly zone: string;
  /** Where packets are received: an IP address (`0.0.0.0`, `::`), and a port, 0 for any. */
  readonly bind: Address;
  /**
   * What others are told to send to, where that is not what is bound to (NAT, several interfaces).
   * Without a host: the bound one, or, for `0.0.0.0` and `::`, the address from which the first
   * seed is reached.
   */
  readonly advertise: { readonly host?: string; readonly port?: number };
  /** TCP port of the exchange; 0: it serves nothing. */
  readonly exchangePort: number;
  /** See seeds.ts. */
  readonly seeds: readonly string[];
  /** A file, read again while the node runs, or the keys themselves, the sealing one first. */
  readonly keys: { readonly file: string } | { readonly secrets: readonly Uint8Array[] };
  readonly membership: MembershipConfig;
  /** Others than WIRE_VERSIONS: for tests of an upgrade. */
  readonly versions: WireVersions;
}

/** All that can be left out. */
export const PEER_NODE_DEFAULTS = {
  zone: "",
  advertise: {},
  exchangePort: 0,
  seeds: [],
  membership: MEMBERSHIP_PRESETS.lan,
  versions: WIRE_VERSIONS,
} as const;

/** Throws `invalid-argument`, naming the field. */
export function checkNodeConfig(config: PeerNodeConfig): PeerNodeConfig {
  checkMemberId(config.id);
  checkConfig(config.membership);
  encodeMeta({ version: 0, exchangePort: 0, zone: config.zone });
  const host = hostOf(addressBytes(config.bind.host));
  checkPort("bind port", config.bind.port);
  checkPort("advertised port", config.advertise.port ?? 0);
  checkPort("exchange port", config.exchangePort);
  const advertised = config.advertise.host;
  if (advertised === undefined) return { ...config, bind: { ...config.bind, host } };
  if (isAnyHost(advertised)) {
    throw new DaemonError("invalid-argument", `${advertised} cannot be advertised`);
  }
  const advertise = { ...config.advertise, host: hostOf(addressBytes(advertised)) };
  return { ...config, bind: { ...config.bind, host }, advertise };
}

/** Listens everywhere, and is nobody's address. */
export function isAnyHost(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function checkPort(what: string, port: number): void {
  if (Number.isInteger(port) && port >= 0 && port <= 65_535) return;
  throw new DaemonError("invalid-argument", `${what} is ${port}; it has to be 0 to 65535`);
}
