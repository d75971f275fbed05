/**
 * One host of a registry: its credentials, its limits, its pauses and its blobs' final addresses.
 * A request here is one try; trying again, or elsewhere, is the client's business.
 */
import { LRUCache } from "lru-cache";
import type { Clock } from "../base/clock.ts";
import { DaemonError, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { Semaphore } from "../base/semaphore.ts";
import { SingleFlight } from "../base/single-flight.ts";
import { Authorizer } from "./authorizer.ts";
import type { CredentialSource } from "./credentials.ts";
import type { RegistryHost } from "./host-config.ts";
import { requestedWaitMs, statusError } from "./http-status.ts";
import { PRIORITIES } from "./image-source.ts";
import type { FetchPriority } from "./image-source.ts";
import {
  BLOB_URL_TTL_MS,
  BLOB_URLS_MAX,
  HOST_BULK_REQUESTS_MAX,
  HOST_COOLDOWN_MS,
  HOST_QUEUE_MAX,
  HOST_REQUESTS_MAX,
  RETRY_AFTER_MAX_MS,
} from "./limits.ts";
import { requestFollowing } from "./redirect.ts";
import type { TransportPool, TransportResponse } from "./transport.ts";

export interface EndpointDeps {
  readonly transport: TransportPool;
  readonly credentials: CredentialSource;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface EndpointRequest {
  readonly method: "GET" | "HEAD";
  readonly repository: string;
  /** Below the repository: `manifests/latest`, `blobs/sha256:…`; empty with no repository. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly priority: FetchPriority;
  /** What is asked for, in messages. */
  readonly what: string;
  /** A blob's final address is worth remembering. */
  readonly isBlob: boolean;
}

/** An answer of status 200 or 206 that holds its place in the host's queue until released. */
export interface EndpointResponse {
  readonly response: TransportResponse;
  /** Once the body is read, discarded or destroyed. */
  release(): void;
}

interface RequestContext {
  readonly request: EndpointRequest;
  readonly url: URL;
  readonly signal: AbortSignal;
}

export class Endpoint {
  readonly host: RegistryHost;
  readonly #domain: string;
  readonly #deps: EndpointDeps;
  readonly #authorizer: Authorizer;
  readonly #all = new Semaphore(HOST_REQUESTS_MAX, { queueMax: HOST_QUEUE_MAX });
  readonly #bulk = new Semaphore(HOST_BULK_REQUESTS_MAX, { queueMax: HOST_QUEUE_MAX });
  readonly #blobUrls: LRUCache<string, URL>;
  readonly #originsWithoutRanges = new Set<string>();
  readonly #settling = new SingleFlight<"origin", string>();
  #origin: string | undefined;
  /** Clock's milliseconds. */
  #pausedUntilMs = Number.NEGATIVE_INFINITY;
  #brokenUntilMs = Number.NEGATIVE_INFINITY;

  constructor(host: RegistryHost, domain: string, deps: EndpointDeps) {
    this.host = host;
    this.#domain = domain;
    this.#deps = deps;
    this.#authorizer = new Authorizer({ tls: host.tls }, deps);
    this.#blobUrls = new LRUCache({
      max: BLOB_URLS_MAX,
      ttl: BLOB_URL_TTL_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.nowMs() },
    });
    this.#origin = host.origins.length === 1 ? host.origins[0] : undefined;
  }

  get name(): string {
    return this.#origin ?? this.host.origins[0] ?? this.#domain;
  }

  /** 0 at its best; a host that broke or asked for a pause is better tried after the others. */
  get reluctance(): number {
    const now = this.#deps.clock.nowMs();
    return now < this.#brokenUntilMs || now < this.#pausedUntilMs ? 1 : 0;
  }

  noteRangeIgnored(origin: string): void {
    if (this.#originsWithoutRanges.has(origin) || this.#originsWithoutRanges.size >= 64) return;
    this.#originsWithoutRanges.add(origin);
    this.#deps.log.warn("registry-range-ignored", { host: this.name, origin });
  }

  /** After wrong bytes: the next request asks the registry where the blob is. */
  forgetBlobUrl(repository: string, path: string): void {
    this.#blobUrls.delete(`${repository}/${path}`);
  }

  noteFailure(error: unknown): void {
    const isBroken = error instanceof DaemonError && error.code === "unavailable";
    if (isBroken) this.#brokenUntilMs = this.#deps.clock.nowMs() + HOST_COOLDOWN_MS;
  }

  noteSuccess(): void {
    this.#brokenUntilMs = Number.NEGATIVE_INFINITY;
  }

  /** Any status but 200 and 206 is thrown as an error (`statusError`). */
  async send(
    request: EndpointRequest,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<EndpointResponse> {
    await this.#waitForPause(signal);
    const release = await this.#admit(request.priority, signal);
    try {
      // Somebody may have been told to wait while this one stood in the queue.
      await this.#waitForPause(signal);
      const origin = await this.#settledOrigin(signal);
      const url = this.#urlOf(origin, request);
      const response = await this.#sendAdmitted({ request, url, signal });
      return { response, release };
    } catch (error) {
      release();
      const wait = requestedWaitMs(error);
      if (wait !== undefined) this.#pause(wait);
      throw error;
    }
  }

  async #sendAdmitted(context: RequestContext): Promise<TransportResponse> {
    const { request } = context;
    const key = request.isBlob ? `${request.repository}/${request.path}` : undefined;
    const remembered = key === undefined ? undefined : this.#blobUrls.get(key);
    if (key !== undefined && remembered !== undefined) {
      const response = await this.#sendToRemembered(context, remembered).catch((error: unknown) => {
        // The registry may know a better place by now.
        this.#blobUrls.delete(key);
        throw error;
      });
      if (response !== undefined) return response;
      this.#blobUrls.delete(key);
    }
    const response = await this.#sendAuthorized(context);
    if (!isContent(response.status)) {
      throw await statusError(response, request.what, this.#deps.clock);
    }
    const isElsewhere = response.url.href !== context.url.href;
    if (key !== undefined && isElsewhere && request.method === "GET") {
      this.#blobUrls.set(key, response.url);
    }
    return response;
  }

  /**
   * Undefined when the address is no good any more: signatures expire with 400, 401, 403, 404 or
   * 410, depending on the store. What says "later" (429, 5xx) is thrown like any answer.
   */
  async #sendToRemembered(
    { request, signal }: RequestContext,
    url: URL,
  ): Promise<TransportResponse | undefined> {
    const { tls } = this.host;
    const response = await requestFollowing(
      this.#deps.transport,
      {
        method: request.method,
        url,
        headers: request.headers,
        tls: { ...tls, clients: [] },
        connectTimeoutMs: this.host.dialTimeoutMs,
      },
      { signal, privateHeaders: {} },
    );
    if (isContent(response.status)) return response;
    const isLater = response.status === 429 || response.status >= 500 || response.status === 408;
    if (isLater || response.status === 416) {
      throw await statusError(response, request.what, this.#deps.clock);
    }
    await response.discard();
    return undefined;
  }

  async #sendAuthorized(context: RequestContext): Promise<TransportResponse> {
    const { request, url, signal } = context;
    const { repository } = request;
    const used = await this.#authorizer.header(repository, url, { signal });
    const first = await this.#sendOnce(context, used);
    const isRefused = first.status === 401 || first.status === 403;
    // A blob store's refusal of a fresh address is not about our credentials.
    if (!isRefused || first.url.origin !== url.origin) return first;
    const challenges = first.headers("www-authenticate");
    const refusal = { status: first.status, challenges, used, repository, registry: url };
    const error = await statusError(first, request.what, this.#deps.clock);
    const other = await this.#authorizer.afterRefusal(refusal, { signal });
    if (other === undefined) throw error;
    return this.#sendOnce(context, other);
  }

  async #sendOnce(
    { request, url, signal }: RequestContext,
    authorization: string | undefined,
  ): Promise<TransportResponse> {
    const privateHeaders: Record<string, string> = {};
    for (const [name, value] of this.host.headers) {
      const before = privateHeaders[name];
      privateHeaders[name] = before === undefined ? value : `${before}, ${value}`;
    }
    if (authorization !== undefined) privateHeaders["authorization"] = authorization;
    return requestFollowing(
      this.#deps.transport,
      {
        method: request.method,
        url,
        headers: request.headers,
        tls: this.host.tls,
        connectTimeoutMs: this.host.dialTimeoutMs,
      },
      { signal, privateHeaders },
    );
  }

  #urlOf(origin: string, { repository, path }: EndpointRequest): URL {
    const below = repository === "" ? "/" : `/${repository}/${path}`;
    const url = new URL(`${origin}${this.host.path}${below}`);
    // Source: containerd, docs/hosts.md, "Registry host namespace".
    if (this.host.isMirror) url.searchParams.set("ns", this.#domain);
    return url;
  }

  /** Bulk work may never hold every place: a reader who waits always finds one soon. */
  async #admit(priority: FetchPriority, signal: AbortSignal): Promise<() => void> {
    const rank = PRIORITIES[priority];
    const releaseBulk =
      priority === "demand" ? undefined : await this.#bulk.acquire({ signal, priority: rank });
    try {
      const releaseAll = await this.#all.acquire({ signal, priority: rank });
      return once(() => {
        releaseAll();
        releaseBulk?.();
      });
    } catch (error) {
      releaseBulk?.();
      throw error;
    }
  }

  #pause(waitMs: number): void {
    const until = this.#deps.clock.nowMs() + Math.min(waitMs, RETRY_AFTER_MAX_MS);
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, until);
  }

  async #waitForPause(signal: AbortSignal): Promise<void> {
    for (;;) {
      const waitMs = this.#pausedUntilMs - this.#deps.clock.nowMs();
      if (!(waitMs > 0)) return;
      await this.#deps.clock.sleep(waitMs, { signal });
    }
  }

  async #settledOrigin(signal: AbortSignal): Promise<string> {
    if (this.#origin !== undefined) return this.#origin;
    return this.#settling.run("origin", (inner) => this.#settleOrigin(inner), { signal });
  }

  /**
   * Loopback without a scheme: HTTP unless the port turns out to speak TLS. Servers say so by 400
   * (Go, nginx), by a TLS alert or by hanging up.
   */
  async #settleOrigin(signal: AbortSignal): Promise<string> {
    let firstFailure: unknown;
    for (const origin of this.host.origins) {
      try {
        const response = await this.#deps.transport.request(
          {
            method: "GET",
            url: new URL(`${origin}${this.host.path}/`),
            headers: {},
            tls: this.host.tls,
            connectTimeoutMs: this.host.dialTimeoutMs,
          },
          { signal },
        );
        const { status } = response;
        await response.discard();
        if (status !== 400) return (this.#origin = origin);
      } catch (error) {
        if (signal.aborted) throw error;
        firstFailure ??= error;
      }
    }
    throw withContext(firstFailure, `${this.name} speaks neither HTTP nor HTTPS`, "unavailable");
  }
}

function isContent(status: number): boolean {
  return status === 200 || status === 206;
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    work();
  };
}
