/**
 * HTTP requests without any policy: connection pools by TLS settings and proxy, timeouts, and
 * undici's errors turned into ours. Redirects, credentials and retries are above.
 */
import { createHash } from "node:crypto";
import { setMaxListeners } from "node:events";
import { rootCertificates } from "node:tls";
import type { SecureContext } from "node:tls";
import type { Dispatcher } from "undici";
import type undiciRequest from "undici/lib/api/api-request.js";
import type { Clock } from "../base/clock.ts";
import { abortReason, throwIfAborted } from "../base/abort.ts";
import { DaemonError, systemErrorName } from "../base/errors.ts";
import { readSmallFile } from "./files.ts";
import type { TlsSettings } from "./host-config.ts";
import {
  DISCARD_BYTES_MAX,
  DOCUMENT_TIMEOUT_MS,
  HOST_REQUESTS_MAX,
  PEM_BYTES_MAX,
  TRANSPORTS_MAX,
} from "./limits.ts";
import { proxyFor } from "./proxy.ts";
import type { ProxyOptions } from "./proxy.ts";
import { transportError } from "./transport-error.ts";

export interface TransportTimeouts {
  /** TCP and TLS together. */
  readonly connectTimeoutMs: number;
  /** From the request to the answer's first line. */
  readonly headersTimeoutMs: number;
  /** Between two pieces of a body that somebody waits for. */
  readonly progressTimeoutMs: number;
}

export interface TransportOptions extends TransportTimeouts {
  readonly userAgent: string;
  readonly proxy: ProxyOptions;
  /** PEM bundle of the system's CAs; undefined looks in the usual places. */
  readonly systemCaFile: string | undefined;
}

export interface TransportRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: URL;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly tls: TlsSettings;
  readonly connectTimeoutMs?: number | undefined;
}

/** An answer; its body must be iterated to the end or discarded. */
export class TransportResponse {
  readonly status: number;
  readonly url: URL;
  readonly #data: Dispatcher.ResponseData;
  readonly #signal: AbortSignal;

  constructor(url: URL, data: Dispatcher.ResponseData, signal: AbortSignal) {
    this.url = url;
    this.status = data.statusCode;
    this.#data = data;
    this.#signal = signal;
  }

  /** The first value of a header, by its lower-case name. */
  header(name: string): string | undefined {
    return this.headers(name)[0];
  }

  headers(name: string): readonly string[] {
    const value = this.#data.headers[name];
    return value === undefined ? [] : Array.isArray(value) ? value : [value];
  }

  /** Throws our errors; leaving the loop early closes the connection. */
  async *pieces(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for await (const piece of this.#data.body) {
        yield piece as Uint8Array;
      }
    } catch (error) {
      if (this.#signal.aborted) throw abortReason(this.#signal);
      throw transportError(error, this.url);
    } finally {
      this.destroy();
    }
  }

  /** The whole body; `data-loss` when it is longer than `bytesMax`, `unavailable` when late. */
  async read(bytesMax: number, clock: Clock): Promise<Buffer> {
    const cancelTimer = clock.timer(DOCUMENT_TIMEOUT_MS, () => {
      this.destroy();
    });
    try {
      return await this.#readAll(bytesMax);
    } finally {
      cancelTimer();
    }
  }

  async #readAll(bytesMax: number): Promise<Buffer> {
    const pieces: Uint8Array[] = [];
    let total = 0;
    for await (const piece of this.pieces()) {
      total += piece.length;
      if (total > bytesMax) {
        throw new DaemonError(
          "data-loss",
          `${this.url.origin} sent a document of more than ${bytesMax} bytes`,
        );
      }
      pieces.push(piece);
    }
    return Buffer.concat(pieces, total);
  }

  /** Reads a little to keep the connection, else closes it. Never throws. */
  async discard(): Promise<void> {
    try {
      await this.#data.body.dump({ limit: DISCARD_BYTES_MAX, signal: this.#signal });
    } catch {
      // Only the connection is lost, and undici has closed it.
      this.destroy();
    }
  }

  destroy(): void {
    this.#data.body.on("error", ignoreLateError);
    this.#data.body.destroy();
  }
}

function ignoreLateError(): void {
  // A body that nobody reads any more may still be told that its connection broke.
}

/** Where Go looks (crypto/x509/root_linux.go): a CA known to containerd is known here. */
const SYSTEM_CA_FILES: readonly string[] = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

async function loadSystemCas(file: string | undefined): Promise<readonly string[]> {
  for (const path of file === undefined ? SYSTEM_CA_FILES : [file]) {
    try {
      return [(await readSmallFile(path, PEM_BYTES_MAX)).toString("latin1")];
    } catch (error) {
      if (systemErrorName(error) === "ENOENT" && file === undefined) continue;
      throw new DaemonError("failed-precondition", `cannot read CA file ${path}`, { cause: error });
    }
  }
  return rootCertificates;
}

function fingerprint(value: unknown): string {
  return createHash("sha256").update(JSON.stringify(value)).digest("base64");
}

type Request = typeof undiciRequest;

interface Pool {
  readonly dispatcher: Dispatcher;
  readonly request: Request;
}

/** All connections of this process to registries, token servers and blob stores. */
export class TransportPool implements AsyncDisposable {
  readonly #options: TransportOptions;
  readonly #pools = new Map<string, Promise<Pool>>();
  #systemCas: Promise<readonly string[]> | undefined;
  #isDisposed = false;

  constructor(options: TransportOptions) {
    this.#options = options;
  }

  /** Throws `unavailable`, `failed-precondition` (certificates), or the signal's reason. */
  async request(
    request: TransportRequest,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<TransportResponse> {
    throwIfAborted(signal);
    // One caller's signal stands over as many requests as it makes; that is no leak.
    setMaxListeners(0, signal);
    const { url } = request;
    const pool = await this.#poolFor(request);
    try {
      const data = await pool.request.call(pool.dispatcher, {
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: request.method,
        headers: {
          "user-agent": this.#options.userAgent,
          accept: "*/*",
          // A body must be the blob's bytes: no transfer compression on top.
          "accept-encoding": "identity",
          ...request.headers,
        },
        ...(request.body === undefined ? {} : { body: request.body }),
        signal,
        headersTimeout: this.#options.headersTimeoutMs,
        bodyTimeout: this.#options.progressTimeoutMs,
      });
      return new TransportResponse(url, data, signal);
    } catch (error) {
      if (signal.aborted) throw abortReason(signal);
      throw transportError(error, url);
    }
  }

  async #poolFor(request: TransportRequest): Promise<Pool> {
    if (this.#isDisposed) throw new DaemonError("failed-precondition", "registry client is closed");
    const isTls = request.url.protocol === "https:";
    const settings = {
      tls: isTls ? request.tls : undefined,
      proxy: proxyFor(request.url, this.#options.proxy),
      connectTimeoutMs: request.connectTimeoutMs ?? this.#options.connectTimeoutMs,
    };
    const key = fingerprint(settings);
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      this.#evict();
      pool = this.#create(settings);
      this.#pools.set(key, pool);
      pool.catch(() => this.#pools.delete(key));
    }
    return pool;
  }

  /** The oldest pool ends when its requests have; settings that changed leave such pools. */
  #evict(): void {
    if (this.#pools.size < TRANSPORTS_MAX) return;
    for (const [key, pool] of this.#pools) {
      this.#pools.delete(key);
      pool.then(({ dispatcher }) => dispatcher.close()).catch(() => undefined);
      return;
    }
  }

  async #create(settings: {
    readonly tls: TlsSettings | undefined;
    readonly proxy: string | undefined;
    readonly connectTimeoutMs: number;
  }): Promise<Pool> {
    const [{ default: Agent }, { default: request }, secure] = await Promise.all([
      import("undici/lib/dispatcher/agent.js"),
      import("undici/lib/api/api-request.js"),
      settings.tls === undefined ? undefined : this.#secureContext(settings.tls),
    ]);
    const connect = {
      timeout: settings.connectTimeoutMs,
      ...(secure === undefined ? {} : { secureContext: secure }),
      rejectUnauthorized: settings.tls?.skipVerify !== true,
    };
    const common = {
      connections: HOST_REQUESTS_MAX + 2,
      pipelining: 1,
      keepAliveTimeout: 20_000,
      keepAliveMaxTimeout: 60_000,
    };
    if (settings.proxy === undefined) {
      return { dispatcher: new Agent({ ...common, connect }), request };
    }
    // The whole of undici: its proxies need what only its index puts together.
    const { ProxyAgent } = await import("undici");
    // `proxyTunnel: false`: plain HTTP goes through the proxy as a request, as everywhere.
    const options = { ...common, uri: settings.proxy, requestTls: connect, proxyTunnel: false };
    return { dispatcher: new ProxyAgent(options), request };
  }

  async #secureContext(tls: TlsSettings): Promise<SecureContext> {
    const { createSecureContext } = await import("node:tls");
    this.#systemCas ??= loadSystemCas(this.#options.systemCaFile);
    const system = tls.skipVerify ? [] : await this.#systemCas;
    try {
      return createSecureContext({
        ...(tls.skipVerify ? {} : { ca: [...system, ...tls.ca] }),
        cert: tls.clients.map(({ certificate }) => certificate),
        key: tls.clients.map(({ key }) => key),
      });
    } catch (error) {
      throw new DaemonError("failed-precondition", "cannot use the configured certificates", {
        cause: error,
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isDisposed = true;
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    const reason = new DaemonError("canceled", "registry client is closed");
    await Promise.allSettled(pools.map(async (pool) => (await pool).dispatcher.destroy(reason)));
  }
}
