/**
 * A registry as one name (`docker.io`), whatever hosts stand behind it: mirrors are tried in
 * order, what fails for now is tried again with backoff, what is wrong is refused.
 */
import { LRUCache } from "lru-cache";
import { abortReason, throwIfAborted } from "../base/abort.ts";
import { DaemonError, errorCode, RETRYABLE, withContext } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import type { ByteRange } from "../base/range-set.ts";
import { SingleFlight } from "../base/single-flight.ts";
import {
  bareMediaType,
  digestOf,
  DOCUMENT_BYTES_MAX,
  MANIFEST_ACCEPT,
  tryParseDigest,
  verifyContent,
} from "../oci/index.ts";
import type { Descriptor, Digest, Reference } from "../oci/index.ts";
import { BlobBody } from "./blob-body.ts";
import type { BlobSpan } from "./blob-body.ts";
import { BlobStream } from "./blob-stream.ts";
import { Endpoint } from "./endpoint.ts";
import type { EndpointDeps, EndpointRequest } from "./endpoint.ts";
import { loadHosts } from "./host-config.ts";
import type { RegistryHost } from "./host-config.ts";
import { requestedWaitMs } from "./http-status.ts";
import type { BlobOptions, ResolvedImage, ResolveOptions } from "./image-source.ts";
import {
  ATTEMPTS_MAX,
  BLOB_URL_TTL_MS,
  BLOB_URLS_MAX,
  HOST_CONFIG_TTL_MS,
  RETRY_AFTER_MAX_MS,
} from "./limits.ts";
import { resolveReference } from "./resolve-image.ts";
import type { RawManifest } from "./resolve-image.ts";
import { backoffMs } from "./retry.ts";

export interface ClientOptions {
  readonly hostsDirs: readonly string[];
}

export interface ClientDeps extends EndpointDeps {
  readonly random: Random;
}

interface Loaded {
  readonly endpoints: readonly Endpoint[];
  /** The hosts as text: unchanged hosts keep their endpoint. */
  readonly keys: readonly string[];
  readonly loadedAtMs: number;
}

/** A tag may be asked only of hosts that may resolve; a digest of all that may pull. */
type Need = "pull" | "resolve";

interface TryOptions {
  readonly need: Need;
  readonly signal: AbortSignal;
  /** `repository@digest` of a blob: hosts that gave wrong bytes for it come last. */
  readonly blob?: string | undefined;
}

export class RegistryClient {
  readonly domain: string;
  readonly #options: ClientOptions;
  readonly #deps: ClientDeps;
  readonly #loading = new SingleFlight<"hosts", Loaded>();
  /** Who served a blob last, and who served it wrong. */
  readonly #servedBy: LRUCache<string, Endpoint>;
  readonly #corruptAt: LRUCache<string, Set<Endpoint>>;
  #loaded: Loaded | undefined;

  constructor(domain: string, options: ClientOptions, deps: ClientDeps) {
    this.domain = domain;
    this.#options = options;
    this.#deps = deps;
    const bounds = {
      max: BLOB_URLS_MAX,
      ttl: BLOB_URL_TTL_MS,
      ttlResolution: 0,
      perf: { now: () => deps.clock.nowMs() },
    };
    this.#servedBy = new LRUCache(bounds);
    this.#corruptAt = new LRUCache(bounds);
  }

  /** Whether the registry answers at all, with the login it wants. Not needed before anything. */
  async ping({ signal }: { readonly signal: AbortSignal }): Promise<{ readonly host: string }> {
    return this.#tryHosts({ need: "pull", signal }, async (endpoint) => {
      const answer = await endpoint.send(
        { ...request("", "", `registry ${this.domain}`), priority: "demand" },
        { signal },
      );
      try {
        await answer.response.discard();
      } finally {
        answer.release();
      }
      return { host: endpoint.name };
    });
  }

  /**
   * The manifest and config that a reference means on a platform. Throws `not-found`,
   * `unauthenticated`, `permission-denied`, `unavailable` (tried ATTEMPTS_MAX times), `data-loss`.
   */
  async resolve(reference: Reference, options: ResolveOptions): Promise<ResolvedImage> {
    const { repository } = reference;
    const documents = {
      manifest: async (name: string) => this.fetchManifest(repository, name, options),
      config: async (descriptor: Descriptor) => this.fetchConfig(repository, descriptor, options),
    };
    return resolveReference(reference, documents, options);
  }

  /** `name` is a tag or a digest; the digest of what is returned is always computed. */
  async fetchManifest(
    repository: string,
    name: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<RawManifest> {
    const fetched = await this.#fetchManifest(repository, name, { signal });
    if (fetched !== undefined) return fetched;
    throw new DaemonError("data-loss", `${this.domain} says that nothing has changed unasked`);
  }

  /** The same of a tag whose meaning was known; undefined: it is still that. */
  async fetchChangedManifest(
    repository: string,
    tag: string,
    { known, signal }: { readonly known: Digest; readonly signal: AbortSignal },
  ): Promise<RawManifest | undefined> {
    return this.#fetchManifest(repository, tag, { known, signal });
  }

  async #fetchManifest(
    repository: string,
    name: string,
    { known, signal }: { readonly known?: Digest; readonly signal: AbortSignal },
  ): Promise<RawManifest | undefined> {
    const expected = tryParseDigest(name);
    const what = `manifest ${this.domain}/${repository} ${name}`;
    const need = expected === undefined ? "resolve" : "pull";
    const accept = MANIFEST_ACCEPT.join(", ");
    // A manifest's ETag is its digest, in registries that have one (RFC 9110 13.1.2).
    const headers = known === undefined ? { accept } : { accept, "if-none-match": `"${known}"` };
    return this.#tryHosts({ need, signal }, async (endpoint) => {
      const asked = { ...request(repository, `manifests/${name}`, what), headers };
      const answer = await endpoint.send(asked, { signal }).catch((error: unknown) => {
        if (known !== undefined && isNotModified(error)) return undefined;
        throw error;
      });
      if (answer === undefined) return undefined;
      try {
        const { response } = answer;
        const bytes = await response.read(DOCUMENT_BYTES_MAX, this.#deps.clock);
        const claimed = response.header("docker-content-digest") ?? "";
        const digest = expected ?? tryParseDigest(claimed) ?? digestOf(bytes);
        verifyContent(bytes, { digest });
        const mediaType = bareMediaType(response.header("content-type") ?? "");
        return { bytes, digest, mediaType: mediaType === "" ? undefined : mediaType };
      } finally {
        answer.release();
      }
    });
  }

  /** A whole small blob, verified; `data-loss` when it is longer than a document can be. */
  async fetchConfig(
    repository: string,
    { digest, size }: { readonly digest: Digest; readonly size?: number },
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Uint8Array> {
    checkDocumentBytes(size ?? 0);
    const options = size === undefined ? { signal } : { signal, size };
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of await this.openBlob(repository, digest, undefined, options)) {
      length += piece.length;
      checkDocumentBytes(length);
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  }

  /** See BlobRangeReader.open. */
  async openBlob(
    repository: string,
    digest: Digest,
    range: ByteRange | undefined,
    options: BlobOptions,
  ): Promise<AsyncIterable<Uint8Array>> {
    const { signal, size } = options;
    const isEmpty = size === 0 || (range !== undefined && range.start === range.end);
    checkRange(range, size);
    if (isEmpty) return emptyBlob();
    const span: BlobSpan = { start: range?.start ?? 0, end: range?.end };
    const openBody = (part: BlobSpan): Promise<BlobBody> =>
      this.#openBody(repository, digest, part, options);
    const isVerified = range === undefined && options.verify !== false;
    return new BlobStream(
      await openBody(span),
      { digest, span, size, isVerified, signal },
      {
        clock: this.#deps.clock,
        random: this.#deps.random,
        openBody,
        onCorrupt: () => {
          this.reportCorrupt(repository, digest);
        },
      },
    );
  }

  /** Bytes of this blob were wrong: whoever served it last is asked last from now on. */
  reportCorrupt(repository: string, digest: Digest): void {
    const key = blobKey(repository, digest);
    const endpoint = this.#servedBy.get(key);
    if (endpoint === undefined) return;
    endpoint.forgetBlobUrl(repository, `blobs/${digest}`);
    const corrupt = this.#corruptAt.get(key) ?? new Set();
    this.#corruptAt.set(key, corrupt.add(endpoint));
    this.#deps.log.error("registry-blob-corrupt", { host: endpoint.name, repository, digest });
  }

  async #openBody(
    repository: string,
    digest: Digest,
    span: BlobSpan,
    options: BlobOptions,
  ): Promise<BlobBody> {
    const { signal, size } = options;
    const what = `blob ${digest}`;
    const isPart = span.start > 0 || span.end !== undefined;
    const last = span.end === undefined ? "" : String(span.end - 1);
    const blob = blobKey(repository, digest);
    return this.#tryHosts({ need: "pull", signal, blob }, async (endpoint) => {
      const answer = await endpoint.send(
        {
          ...request(repository, `blobs/${digest}`, what),
          headers: isPart ? { range: `bytes=${span.start}-${last}` } : {},
          priority: options.priority ?? "demand",
          isBlob: true,
        },
        { signal },
      );
      const body = BlobBody.of(answer, endpoint, { span, size, what, signal });
      this.#servedBy.set(blob, endpoint);
      return body;
    });
  }

  /**
   * Rounds over the hosts until one does the work. A host that refused for good is not asked
   * again; the round ends the matter when no host is left, or when the registry itself (the last
   * host) says that the thing does not exist.
   */
  async #tryHosts<T>(options: TryOptions, work: (endpoint: Endpoint) => Promise<T>): Promise<T> {
    const { signal } = options;
    const failures = new Map<Endpoint, Error>();
    for (let attempt = 1; ; attempt += 1) {
      const endpoints = await this.#candidates(options);
      const own = endpoints.at(-1);
      const open = endpoints.filter((endpoint) => isRetryable(failures.get(endpoint)));
      for (const endpoint of this.#inOrder(open, options.blob)) {
        throwIfAborted(signal);
        try {
          const result = await work(endpoint);
          endpoint.noteSuccess();
          return result;
        } catch (error) {
          if (signal.aborted) throw abortReason(signal);
          failures.set(endpoint, toError(error));
          endpoint.noteFailure(error);
          this.#deps.log.debug("registry-request-failed", {
            host: endpoint.name,
            attempt,
            err: error,
          });
        }
      }
      const verdict = verdictOf(failures, endpoints, own, attempt);
      if (verdict !== undefined) throw verdict;
      await this.#deps.clock.sleep(backoffMs(attempt, this.#deps.random), { signal });
    }
  }

  async #candidates({ need, signal }: TryOptions): Promise<readonly Endpoint[]> {
    const { endpoints } = await this.#load(signal);
    const able = endpoints.filter(({ host }) => (need === "pull" ? host.canPull : host.canResolve));
    if (able.length > 0) return able;
    throw new DaemonError(
      "failed-precondition",
      `no host of ${this.domain} has the capability "${need}" (see its hosts.toml)`,
    );
  }

  #inOrder(endpoints: readonly Endpoint[], blob: string | undefined): readonly Endpoint[] {
    const corrupt = blob === undefined ? undefined : this.#corruptAt.get(blob);
    const rank = (endpoint: Endpoint): number =>
      corrupt?.has(endpoint) === true ? 2 : endpoint.reluctance;
    return [...endpoints].sort((a, b) => rank(a) - rank(b));
  }

  async #load(signal: AbortSignal): Promise<Loaded> {
    const loaded = this.#loaded;
    const age = this.#deps.clock.nowMs() - (loaded?.loadedAtMs ?? Number.NEGATIVE_INFINITY);
    if (loaded !== undefined && age < HOST_CONFIG_TTL_MS) return loaded;
    return this.#loading.run("hosts", () => this.#reload(), { signal, detached: true });
  }

  async #reload(): Promise<Loaded> {
    const before = this.#loaded;
    let hosts: readonly RegistryHost[];
    try {
      hosts = await loadHosts(this.domain, this.#options);
    } catch (error) {
      if (before === undefined) throw error;
      // A file that is being edited must not stop readers.
      this.#deps.log.warn("registry-hosts-not-reloaded", { domain: this.domain, err: error });
      this.#loaded = { ...before, loadedAtMs: this.#deps.clock.nowMs() };
      return this.#loaded;
    }
    const keys = hosts.map((host) => JSON.stringify(host));
    const endpoints = hosts.map((host, position) => {
      const same = before?.keys.indexOf(keys[position] ?? "") ?? -1;
      return before?.endpoints[same] ?? new Endpoint(host, this.domain, this.#deps);
    });
    this.#loaded = { endpoints, keys, loadedAtMs: this.#deps.clock.nowMs() };
    return this.#loaded;
  }
}

function request(repository: string, path: string, what: string): EndpointRequest {
  return {
    method: "GET",
    repository,
    path,
    what,
    headers: {},
    priority: "demand",
    isBlob: false,
  };
}

function checkDocumentBytes(bytes: number): void {
  if (bytes > DOCUMENT_BYTES_MAX) throw new DaemonError("data-loss", `config of ${bytes} bytes`);
}

function isNotModified(error: unknown): boolean {
  return error instanceof DaemonError && error.details["status"] === 304;
}

function blobKey(repository: string, digest: Digest): string {
  return `${repository}@${digest}`;
}

function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : withContext(thrown, "registry request failed");
}

function isRetryable(failure: unknown): boolean {
  if (failure === undefined) return true;
  if (!RETRYABLE[errorCode(failure)]) return false;
  return (requestedWaitMs(failure) ?? 0) <= RETRY_AFTER_MAX_MS;
}

/** The error to end with, or undefined to go on with another round. */
function verdictOf(
  failures: ReadonlyMap<Endpoint, Error>,
  endpoints: readonly Endpoint[],
  own: Endpoint | undefined,
  attempt: number,
): Error | undefined {
  const ofOwn = own === undefined ? undefined : failures.get(own);
  if (ofOwn !== undefined && errorCode(ofOwn) === "not-found") return ofOwn;
  const isOver = attempt >= ATTEMPTS_MAX;
  const retryable = endpoints.some((endpoint) => isRetryable(failures.get(endpoint)));
  if (retryable && !isOver) return undefined;
  return ofOwn ?? [...failures.values()].at(-1);
}

function checkRange(range: ByteRange | undefined, size: number | undefined): void {
  if (range === undefined) return;
  const { start, end } = range;
  const isSound = Number.isSafeInteger(start) && Number.isSafeInteger(end) && start >= 0;
  if (isSound && start <= end && (size === undefined || end <= size)) return;
  throw new DaemonError(
    "out-of-range",
    `range ${start} to ${end} of a blob of ${size ?? "unknown"} bytes`,
  );
}

async function* emptyBlob(): AsyncGenerator<Uint8Array, void, undefined> {
  // No byte is asked for: the registry need not be.
}
