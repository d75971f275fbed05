/**
 * `/v2/`: what is cached here in the shape of a registry, for any OCI client; read only.
 * Source: OCI distribution-spec v1.1, "Pull"; RFC 9110 14 (ranges).
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { raceAbort } from "../../base/abort.ts";
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import type { ErrorCode } from "../../base/errors.ts";
import type { ByteRange } from "../../base/range-set.ts";
import { tryParseDigest } from "../../oci/index.ts";
import type { Digest } from "../../oci/index.ts";
import { REPOSITORY_CHARS_MAX, TARGET_CHARS_MAX } from "./limits.ts";
import { httpStatusOf } from "./protocol.ts";
import type { DocumentProvider, Repository } from "./providers.ts";

const PREFIX = "/v2/";
/** Source: distribution-spec v1.1, "Pulling manifests". */
const NAME_PATTERN =
  /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG_PATTERN = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const REGISTRY_PATTERN = /^[\w.:[\]-]{1,255}$/;

export type RegistryTarget =
  | { readonly kind: "base" }
  | { readonly kind: "manifest"; readonly repository: Repository; readonly reference: string }
  | { readonly kind: "blob"; readonly repository: Repository; readonly digest: Digest };

/** Path and query; `not-found` for what is no part of pulling. */
export function parseRegistryTarget(target: string): RegistryTarget {
  if (target.length > TARGET_CHARS_MAX) throw unknown("resource");
  const cut = target.indexOf("?");
  const path = cut < 0 ? target : target.slice(0, cut);
  if (path === PREFIX || path === "/v2") return { kind: "base" };
  const match = /^\/v2\/(?<name>.+)\/(?<kind>manifests|blobs)\/(?<reference>[^/]+)$/.exec(path);
  const { name = "", kind = "", reference: encoded = "" } = match?.groups ?? {};
  if (name.length > REPOSITORY_CHARS_MAX || !NAME_PATTERN.test(name)) throw unknown("repository");
  const query = new URLSearchParams(cut < 0 ? "" : target.slice(cut + 1));
  const registry = query.get("ns") ?? undefined;
  if (registry !== undefined && !REGISTRY_PATTERN.test(registry)) throw unknown("registry");
  const repository = { registry, name };
  const reference = encoded.replace(/^sha256%3a/i, "sha256:");
  const digest = tryParseDigest(reference);
  if (kind === "blobs") {
    if (digest === undefined) throw unknown("blob");
    return { kind: "blob", repository, digest };
  }
  if (digest === undefined && !TAG_PATTERN.test(reference)) throw unknown("manifest");
  return { kind: "manifest", repository, reference };
}

function unknown(what: string): DaemonError {
  return new DaemonError("not-found", `no such ${what}`);
}

/**
 * One range of a blob of `size` bytes; undefined: all of it (no range, several, or none that we
 * know, RFC 9110 14.2); `out-of-range` when it cannot be satisfied.
 */
export function parseRange(header: string | undefined, size: number): ByteRange | undefined {
  const match = /^bytes=(?<from>\d{0,15})-(?<to>\d{0,15})$/.exec(header ?? "");
  const { from = "", to = "" } = match?.groups ?? {};
  if (from === "" && to === "") return undefined;
  const start = from === "" ? Math.max(0, size - Number(to)) : Number(from);
  const end = from === "" || to === "" ? size : Math.min(size, Number(to) + 1);
  if (from !== "" && to !== "" && Number(to) < start) return undefined; // malformed: passed over
  if (start >= end) throw new DaemonError("out-of-range", `the blob has ${size} bytes`);
  return { start, end };
}

export class RegistryFace {
  readonly #documents: DocumentProvider;

  constructor(documents: DocumentProvider) {
    this.#documents = documents;
  }

  /** Answers; rejects only when a body that had begun could not be completed. */
  async handle(
    request: IncomingMessage,
    response: ServerResponse,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> {
    response.setHeader("docker-distribution-api-version", "registry/2.0");
    let answer: () => Promise<void>;
    try {
      if (request.method !== "GET" && request.method !== "HEAD") {
        throw new DaemonError("unimplemented", "this mirror is read only");
      }
      const target = parseRegistryTarget(request.url ?? "");
      answer = await this.#prepare(target, request, response, signal);
    } catch (error) {
      sendError(request, response, error);
      return;
    }
    await answer();
  }

  async #prepare(
    target: RegistryTarget,
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<() => Promise<void>> {
    if (target.kind === "base") {
      return async () => {
        response.writeHead(200, { "content-type": "application/json", "content-length": 2 });
        response.end(request.method === "HEAD" ? undefined : "{}");
      };
    }
    if (target.kind === "manifest") return this.#manifest(target, request, response, signal);
    return this.#blob(target, request, response, signal);
  }

  async #manifest(
    target: Extract<RegistryTarget, { kind: "manifest" }>,
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<() => Promise<void>> {
    const { repository, reference } = target;
    const found = await raceAbort(
      this.#documents.manifest(repository, reference, { signal, userAgent: userAgentOf(request) }),
      signal,
    );
    if (found === undefined) throw unknown("manifest");
    return async () => {
      response.writeHead(200, {
        "content-type": found.mediaType,
        "content-length": found.bytes.length,
        "docker-content-digest": found.digest,
        etag: `"${found.digest}"`,
      });
      response.end(request.method === "HEAD" ? undefined : found.bytes);
    };
  }

  async #blob(
    target: Extract<RegistryTarget, { kind: "blob" }>,
    request: IncomingMessage,
    response: ServerResponse,
    signal: AbortSignal,
  ): Promise<() => Promise<void>> {
    const { repository, digest } = target;
    const blob = await raceAbort(
      this.#documents.blob(repository, digest, { signal, userAgent: userAgentOf(request) }),
      signal,
    );
    if (blob === undefined) throw unknown("blob");
    const { size } = blob;
    let range: ByteRange | undefined;
    try {
      range = parseRange(request.headers.range, size);
    } catch (error) {
      response.setHeader("content-range", `bytes */${size}`);
      throw error;
    }
    const { start, end } = range ?? { start: 0, end: size };
    return async () => {
      response.writeHead(range === undefined ? 200 : 206, {
        "content-type": "application/octet-stream",
        "content-length": end - start,
        "docker-content-digest": digest,
        "accept-ranges": "bytes",
        etag: `"${digest}"`,
        ...(range === undefined ? {} : { "content-range": `bytes ${start}-${end - 1}/${size}` }),
      });
      if (request.method === "HEAD" || start === end) response.end();
      else await sendPieces(response, blob.read({ start, end }, { signal }), end - start, signal);
    };
  }
}

function userAgentOf({ headers }: IncomingMessage): string {
  return headers["user-agent"] ?? "";
}

async function sendPieces(
  response: ServerResponse,
  pieces: AsyncIterable<Uint8Array>,
  length: number,
  signal: AbortSignal,
): Promise<void> {
  let sent = 0;
  for await (const piece of pieces) {
    sent += piece.length;
    if (sent > length || signal.aborted) break;
    // The piece may be used again by its owner.
    const hasRoom = response.write(Buffer.from(piece));
    if (!hasRoom) {
      await raceAbort(new Promise<void>((resolve) => response.once("drain", resolve)), signal);
    }
  }
  if (sent !== length) throw new DaemonError("data-loss", `${sent} of ${length} bytes`);
  response.end();
}

/** Source: distribution-spec v1.1, "Error Codes". */
const OCI_CODES: Readonly<Partial<Record<ErrorCode, string>>> = {
  "not-found": "MANIFEST_UNKNOWN",
  "out-of-range": "SIZE_INVALID",
  unimplemented: "UNSUPPORTED",
  "resource-exhausted": "TOOMANYREQUESTS",
};

function sendError(request: IncomingMessage, response: ServerResponse, error: unknown): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const code = errorCode(error);
  const message = errorMessage(error);
  const errors = [{ code: OCI_CODES[code] ?? "UNKNOWN", message }];
  const body = Buffer.from(JSON.stringify({ errors }));
  response.writeHead(httpStatusOf(code), {
    "content-type": "application/json",
    "content-length": body.length,
    ...(request.complete ? {} : { connection: "close" }),
  });
  response.end(request.method === "HEAD" ? undefined : body);
}
