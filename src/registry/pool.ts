/** All registries of this process: one client per name, one set of connections. */
import type { Clock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { isDomain } from "../oci/index.ts";
import { RegistryClient } from "./client.ts";
import { DockerCredentials } from "./credentials.ts";
import type { CredentialSource } from "./credentials.ts";
import { CLIENTS_MAX } from "./limits.ts";
import type { ProxyOptions } from "./proxy.ts";
import { TransportPool } from "./transport.ts";

export interface RegistryOptions {
  /** Folders in containerd's certs.d form, looked through in order. */
  readonly hostsDirs: readonly string[];
  /** Folder of docker's config.json with the logins; undefined is anonymous everywhere. */
  readonly dockerConfigDir: string | undefined;
  /** Environment of `docker-credential-*` helpers: at least PATH and HOME. */
  readonly helperEnvironment: Readonly<Record<string, string>>;
  /** As the environment's HTTP_PROXY, HTTPS_PROXY and NO_PROXY say. */
  readonly proxy: ProxyOptions;
  /** PEM bundle of trusted CAs (SSL_CERT_FILE); undefined is the system's. */
  readonly systemCaFile: string | undefined;
  readonly userAgent: string;
  /** TCP and TLS set-up; a host that takes longer is passed over for the next. */
  readonly connectTimeoutMs: number;
  /** From request to first line of the answer. */
  readonly headersTimeoutMs: number;
  /** Between two pieces of a body; a silent connection is dropped and the rest fetched anew. */
  readonly progressTimeoutMs: number;
}

export const DEFAULT_REGISTRY_OPTIONS: RegistryOptions = {
  hostsDirs: ["/etc/containerd/certs.d", "/etc/docker/certs.d"],
  dockerConfigDir: "/root/.docker",
  helperEnvironment: {
    PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: "/root",
  },
  proxy: {},
  systemCaFile: undefined,
  userAgent: "faasnet-snapshotter",
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 20_000,
  progressTimeoutMs: 20_000,
};

export interface RegistryPoolDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  /** Instead of docker's config.json and helpers. */
  readonly credentials?: CredentialSource;
}

export class RegistryPool implements AsyncDisposable {
  readonly #options: RegistryOptions;
  readonly #deps: RegistryPoolDeps;
  readonly #transport: TransportPool;
  readonly #credentials: CredentialSource;
  readonly #clients = new Map<string, RegistryClient>();

  constructor(options: RegistryOptions, deps: RegistryPoolDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#transport = new TransportPool(options);
    this.#credentials = deps.credentials ?? new DockerCredentials(options, deps);
  }

  /** `domain` as in a reference: `docker.io`, `localhost:5000`. No I/O. */
  client(domain: string): RegistryClient {
    const known = this.#clients.get(domain);
    if (known !== undefined) return known;
    if (!isDomain(domain)) {
      throw new DaemonError("invalid-argument", `"${domain.slice(0, 100)}" is no registry host`);
    }
    if (this.#clients.size >= CLIENTS_MAX) {
      // Whoever still holds the oldest goes on with it; it owns nothing that must be closed.
      const oldest = this.#clients.keys().next();
      if (oldest.done !== true) this.#clients.delete(oldest.value);
    }
    const client = new RegistryClient(domain, this.#options, {
      transport: this.#transport,
      credentials: this.#credentials,
      clock: this.#deps.clock,
      random: this.#deps.random,
      log: this.#deps.log,
    });
    this.#clients.set(domain, client);
    return client;
  }

  /** Ends every request under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
    this.#clients.clear();
  }
}
