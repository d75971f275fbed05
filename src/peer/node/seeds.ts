/**
 * Seeds: where a node that knows nobody asks first. Each entry is
 *
 *     10.0.0.1:7411, [fd00::1]:7411, 10.0.0.1     an address
 *     peers.example:7411, peers.example           a name: all its A and AAAA records
 *     _faasnet._udp.example                       a name: its SRV records, and their addresses
 *     /etc/faasnet/seeds                          a file with one of these a line, # comments
 *
 * Names are resolved and files read again and again: what is wrong with one entry does not keep the
 * others from being used, and an entry that fails keeps the addresses that it had.
 */
import { lookup, resolveSrv } from "node:dns/promises";
import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { raceAbort } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, errorMessage } from "../../base/errors.ts";
import type { Address } from "../membership/member.ts";
import { addressBytes, hostOf } from "../membership/wire.ts";
import { keyOf } from "../transport/greeting.ts";

/** UDP and TCP, where none is named. */
export const PORT_DEFAULT = 7411;
/** Addresses in use, of all entries together; a name with more is cut. */
export const SEED_ADDRESSES_MAX = 256;
/** Entries, those in files included. */
const ENTRIES_MAX = 256;
const FILE_BYTES_MAX = 64 * 1024;
/** For one name, ms. */
const RESOLVE_MS_MAX = 5000;

export interface NameResolver {
  /** Addresses of a name, IPv4 and IPv6. */
  addresses(name: string): Promise<readonly string[]>;
  services(name: string): Promise<readonly { readonly name: string; readonly port: number }[]>;
}

export const systemResolver: NameResolver = {
  // Unlike resolve4 this honours /etc/hosts and the machine's search domains.
  addresses: async (name) => (await lookup(name, { all: true })).map(({ address }) => address),
  services: resolveSrv,
};

/** What one entry gave, for reports. */
export interface SeedEntry {
  readonly entry: string;
  readonly addresses: readonly Address[];
  /** Why the last attempt failed. */
  readonly error: string | undefined;
}

export class SeedList {
  readonly #entries: readonly string[];
  readonly #resolver: NameResolver;
  readonly #clock: Clock;
  #resolved = new Map<string, SeedEntry>();

  /** Throws `invalid-argument` for an entry that cannot be one. */
  constructor(
    entries: readonly string[],
    { resolver, clock }: { readonly resolver: NameResolver; readonly clock: Clock },
  ) {
    if (entries.length > ENTRIES_MAX) {
      throw new DaemonError("invalid-argument", `${entries.length} seeds; at most ${ENTRIES_MAX}`);
    }
    for (const entry of entries) if (!entry.startsWith("/")) parseEntry(entry);
    this.#entries = entries;
    this.#resolver = resolver;
    this.#clock = clock;
  }

  /** Of the last `resolve`; empty before. */
  get addresses(): readonly Address[] {
    const all = new Map<string, Address>();
    for (const { addresses } of this.#resolved.values()) {
      for (const address of addresses) all.set(keyOf(address), address);
    }
    return [...all.values()].slice(0, SEED_ADDRESSES_MAX);
  }

  get report(): readonly SeedEntry[] {
    return [...this.#resolved.values()];
  }

  /** Resolves every entry again. Never rejects but for the signal. */
  async resolve({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    const entries: string[] = [];
    const failures: SeedEntry[] = [];
    for (const entry of this.#entries) {
      if (!entry.startsWith("/")) {
        entries.push(entry);
        continue;
      }
      try {
        entries.push(...(await readSeedFile(entry)));
      } catch (error) {
        failures.push({ entry, addresses: [], error: errorMessage(error) });
        // A file that is being replaced takes nobody away.
        for (const old of this.#resolved.keys()) entries.push(old);
      }
    }
    const unique = [...new Set(entries)].slice(0, ENTRIES_MAX);
    const resolved = await Promise.all(unique.map((entry) => this.#resolveOne(entry, signal)));
    this.#resolved = new Map([...failures, ...resolved].map((one) => [one.entry, one]));
  }

  async #resolveOne(entry: string, signal: AbortSignal): Promise<SeedEntry> {
    const controller = new AbortController();
    const stop = this.#clock.timer(RESOLVE_MS_MAX, () => {
      controller.abort(new DaemonError("deadline-exceeded", "no answer in 5 s"));
    });
    try {
      const both = AbortSignal.any([signal, controller.signal]);
      const addresses = await raceAbort(this.#addressesOf(entry), both);
      return { entry, addresses: addresses.slice(0, SEED_ADDRESSES_MAX), error: undefined };
    } catch (error) {
      if (signal.aborted) throw error;
      const addresses = this.#resolved.get(entry)?.addresses ?? [];
      return { entry, addresses, error: errorMessage(error) };
    } finally {
      stop();
    }
  }

  async #addressesOf(entry: string): Promise<readonly Address[]> {
    if (entry.startsWith("/")) return [];
    const { host, port, isService } = parseEntry(entry);
    if (!isService) return this.#hostAddresses(host, port);
    const services = await this.#resolver.services(host);
    const found = await Promise.all(
      services
        .slice(0, SEED_ADDRESSES_MAX)
        .map(({ name, port: servicePort }) => this.#hostAddresses(name, servicePort)),
    );
    return found.flat();
  }

  async #hostAddresses(host: string, port: number): Promise<readonly Address[]> {
    const hosts = isIP(host) === 0 ? await this.#resolver.addresses(host) : [host];
    return hosts
      .filter((one) => isIP(one) !== 0 && !one.includes("%"))
      .map((one) => ({ host: hostOf(addressBytes(one)), port }));
  }
}

interface ParsedEntry {
  readonly host: string;
  readonly port: number;
  readonly isService: boolean;
}

/** Throws `invalid-argument`. */
export function parseEntry(entry: string): ParsedEntry {
  const bare = isIP(entry) === 6 ? `[${entry}]` : entry;
  const match = /^(?:\[([^\]]+)\]|([^\s:[\]/]+))(?::(\d{1,5}))?$/.exec(bare);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = match?.[3] === undefined ? PORT_DEFAULT : Number(match[3]);
  const isService = host.startsWith("_");
  const isAddress = isIP(host) !== 0;
  const isName = /^(?=.{1,253}$)[\w-]{1,63}(\.[\w-]{1,63})*\.?$/.test(host);
  if ((match?.[1] !== undefined && isIP(host) !== 6) || !(isAddress || isName)) {
    throw new DaemonError("invalid-argument", `not a seed: ${JSON.stringify(entry)}`);
  }
  if (port < 1 || port > 65_535 || (isService && match?.[3] !== undefined)) {
    const rule = isService ? "an SRV name has its ports in DNS" : "a port is 1 to 65535";
    throw new DaemonError("invalid-argument", `seed ${JSON.stringify(entry)}: ${rule}`);
  }
  return { host, port, isService };
}

async function readSeedFile(path: string): Promise<readonly string[]> {
  const { size } = await stat(path);
  if (size > FILE_BYTES_MAX) {
    throw new DaemonError("resource-exhausted", `${path} has ${size} bytes; at most 65536`);
  }
  const lines = (await readFile(path, "utf8")).split("\n");
  const entries = lines.map((line) => line.replace(/#.*/, "").trim()).filter((line) => line !== "");
  for (const entry of entries) parseEntry(entry);
  return entries;
}
