/** A registry in this process that misbehaves on demand and writes down what it was asked. */
import { createServer as createHttpServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { digestOf } from "../../../src/oci/index.ts";
import type { Digest } from "../../../src/oci/index.ts";
import { answerToken, checkAuthorization } from "./fake-auth.ts";
import type { FakeAuth } from "./fake-auth.ts";
import type { FakeImage } from "./fake-image.ts";

export interface AccessRecord {
  readonly method: string;
  readonly url: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
  status: number;
}

/** What goes wrong with one answer. */
export type Fault =
  | {
      readonly kind: "status";
      readonly status: number;
      readonly headers?: Record<string, string>;
      readonly body?: string;
    }
  /** The connection breaks after so many bytes of the body. */
  | { readonly kind: "cut"; readonly afterBytes: number }
  /** Nothing more comes after so many bytes, but the connection stays. */
  | { readonly kind: "stall"; readonly afterBytes: number }
  | { readonly kind: "reset" }
  /** One bit of the byte at the offset in the body is wrong. */
  | { readonly kind: "flip"; readonly at: number }
  | { readonly kind: "ignore-range" }
  /** 206 with fewer bytes than asked for. */
  | { readonly kind: "short-range"; readonly bytes: number }
  | { readonly kind: "wrong-range" }
  | { readonly kind: "chunked" }
  | { readonly kind: "headers"; readonly headers: Record<string, string> }
  | { readonly kind: "redirect"; readonly location: string; readonly status?: number }
  | { readonly kind: "delay"; readonly ms: number }
  /** A few bytes now and then. */
  | { readonly kind: "trickle"; readonly bytes: number; readonly everyMs: number };

interface PlannedFault {
  readonly matches: (record: AccessRecord) => boolean;
  readonly fault: Fault;
  rest: number;
}

interface Answer {
  status: number;
  readonly headers: Record<string, string>;
  body: Uint8Array;
}

export interface FakeRegistryOptions {
  readonly auth?: FakeAuth;
  readonly tls?: { readonly key: string; readonly cert: string; readonly ca?: string };
  /** Path before `/v2/`. */
  readonly prefix?: string;
}

export class FakeRegistry implements AsyncDisposable {
  readonly #server: Server;
  readonly #options: FakeRegistryOptions;
  readonly #blobs = new Map<string, Uint8Array>();
  readonly #manifests = new Map<
    string,
    { readonly bytes: Uint8Array; readonly mediaType: string }
  >();
  readonly #faults: PlannedFault[] = [];
  readonly log: AccessRecord[] = [];
  /** Requests being answered now, and the most there were. */
  openCount = 0;
  openCountMax = 0;
  connectionCount = 0;

  private constructor(options: FakeRegistryOptions) {
    this.#options = options;
    const listener = (request: IncomingMessage, response: ServerResponse): void => {
      this.#serve(request, response).catch(() => response.destroy());
    };
    const { tls } = options;
    this.#server =
      tls === undefined
        ? createHttpServer(listener)
        : createHttpsServer(
            { ...tls, requestCert: tls.ca !== undefined, rejectUnauthorized: tls.ca !== undefined },
            listener,
          );
    this.#server.on("connection", () => {
      this.connectionCount += 1;
    });
  }

  static async start(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
    const registry = new FakeRegistry(options);
    await new Promise<void>((resolve) => registry.#server.listen(0, "127.0.0.1", resolve));
    return registry;
  }

  get port(): number {
    const address = this.#server.address() as AddressInfo;
    return address.port;
  }

  /** As in a reference. */
  get domain(): string {
    return `127.0.0.1:${this.port}`;
  }

  get origin(): string {
    return `${this.#options.tls === undefined ? "http" : "https"}://${this.domain}`;
  }

  addBlob(bytes: Uint8Array): Digest {
    const digest = digestOf(bytes);
    this.#blobs.set(digest, bytes);
    return digest;
  }

  /** Under a digest that may not be its own. */
  putBlob(digest: Digest, bytes: Uint8Array): void {
    this.#blobs.set(digest, bytes);
  }

  addManifest(repository: string, name: string, bytes: Uint8Array, mediaType: string): void {
    this.#manifests.set(`${repository} ${name}`, { bytes, mediaType });
    this.#manifests.set(`${repository} ${digestOf(bytes)}`, { bytes, mediaType });
  }

  addImage(repository: string, tag: string, image: FakeImage): void {
    this.addManifest(repository, tag, image.manifest, image.mediaType);
    for (const bytes of image.blobs.values()) this.addBlob(bytes);
  }

  /** The next `times` matching requests go wrong; several faults of one request add up. */
  fail(matches: RegExp | ((record: AccessRecord) => boolean), fault: Fault, times = 1): void {
    const test =
      matches instanceof RegExp
        ? (record: AccessRecord): boolean => matches.test(`${record.method} ${record.url}`)
        : matches;
    this.#faults.push({ matches: test, fault, rest: times });
  }

  clearFaults(): void {
    this.#faults.length = 0;
  }

  /** `METHOD path` of every request. */
  get requests(): readonly string[] {
    return this.log.map(({ method, url }) => `${method} ${url}`);
  }

  #takeFaults(record: AccessRecord): readonly Fault[] {
    const due = this.#faults.filter(({ rest, matches }) => rest > 0 && matches(record));
    for (const fault of due) fault.rest -= 1;
    return due.map(({ fault }) => fault);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.openCount += 1;
    this.openCountMax = Math.max(this.openCountMax, this.openCount);
    response.on("close", () => {
      this.openCount -= 1;
    });
    const body: Buffer[] = [];
    for await (const piece of request) body.push(piece as Buffer);
    const record: AccessRecord = {
      method: request.method ?? "",
      url: request.url ?? "",
      range: request.headers.range,
      authorization: request.headers.authorization,
      headers: request.headers,
      body: Buffer.concat(body).toString(),
      status: 0,
    };
    this.log.push(record);
    const faults = this.#takeFaults(record);
    for (const fault of faults) {
      if (fault.kind === "delay") await new Promise((resolve) => setTimeout(resolve, fault.ms));
    }
    if (faults.some(({ kind }) => kind === "reset")) {
      request.socket.resetAndDestroy();
      return;
    }
    const answer = faultAnswer(faults) ?? this.#answer(record, faults);
    record.status = answer.status;
    send(record, answer, faults, response);
  }

  #answer(record: AccessRecord, faults: readonly Fault[]): Answer {
    const { auth, prefix = "" } = this.#options;
    const url = new URL(record.url, this.origin);
    const token = answerToken(auth, record, url);
    if (token !== undefined) return token;
    const refusal = checkAuthorization(auth, record, url, this.origin);
    if (refusal !== undefined) return refusal;
    if (url.pathname === `${prefix}/v2/`) return { status: 200, headers: {}, body: EMPTY };
    const match = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(
      url.pathname.slice(prefix.length),
    );
    if (!url.pathname.startsWith(prefix) || match === null) return notFound("NAME_UNKNOWN");
    const [, repository = "", kind, name = ""] = match;
    if (kind === "manifests") {
      return this.#manifest(repository, name, record.headers["if-none-match"]);
    }
    const blob = this.#blobs.get(name);
    return blob === undefined ? notFound("BLOB_UNKNOWN") : ranged(blob, record.range, faults);
  }

  #manifest(repository: string, name: string, unless: string | string[] | undefined): Answer {
    const found = this.#manifests.get(`${repository} ${name}`);
    if (found === undefined) return notFound("MANIFEST_UNKNOWN");
    const digest = digestOf(found.bytes);
    if (unless === `"${digest}"`) return { status: 304, headers: {}, body: EMPTY };
    const headers = { "content-type": found.mediaType, "docker-content-digest": digest };
    return { status: 200, headers, body: found.bytes };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

const EMPTY = new Uint8Array(0);

function notFound(code: string): Answer {
  return {
    status: 404,
    headers: { "content-type": "application/json" },
    body: Buffer.from(JSON.stringify({ errors: [{ code, message: "secret-looking message" }] })),
  };
}

function faultAnswer(faults: readonly Fault[]): Answer | undefined {
  for (const fault of faults) {
    if (fault.kind === "status") {
      return {
        status: fault.status,
        headers: fault.headers ?? {},
        body: Buffer.from(fault.body ?? ""),
      };
    }
    if (fault.kind === "redirect") {
      return { status: fault.status ?? 307, headers: { location: fault.location }, body: EMPTY };
    }
  }
  return undefined;
}

function ranged(blob: Uint8Array, range: string | undefined, faults: readonly Fault[]): Answer {
  const has = (kind: Fault["kind"]): boolean => faults.some((fault) => fault.kind === kind);
  const headers = { "content-type": "application/octet-stream" };
  if (range === undefined || has("ignore-range")) return { status: 200, headers, body: blob };
  const match = /^bytes=(\d+)-(\d*)$/.exec(range);
  const start = Number(match?.[1]);
  const last = match?.[2] === "" ? blob.length - 1 : Math.min(Number(match?.[2]), blob.length - 1);
  if (match === null || start > last) {
    return { status: 416, headers: { "content-range": `bytes */${blob.length}` }, body: EMPTY };
  }
  const short = faults.find((fault) => fault.kind === "short-range");
  const end = short?.kind === "short-range" ? Math.min(last + 1, start + short.bytes) : last + 1;
  const shift = has("wrong-range") ? 1 : 0;
  return {
    status: 206,
    headers: { ...headers, "content-range": `bytes ${start + shift}-${end - 1}/${blob.length}` },
    body: blob.subarray(start + shift, end),
  };
}

function send(
  record: AccessRecord,
  answer: Answer,
  faults: readonly Fault[],
  response: ServerResponse,
): void {
  let { body } = answer;
  const headers: Record<string, string> = { ...answer.headers };
  let isChunked = false;
  let keep = body.length;
  let isStalled = false;
  for (const fault of faults) {
    if (fault.kind === "flip" && fault.at < body.length) {
      const copy = Buffer.from(body);
      copy[fault.at] = (copy[fault.at] ?? 0) ^ 1;
      body = copy;
    } else if (fault.kind === "headers") Object.assign(headers, fault.headers);
    else if (fault.kind === "chunked") isChunked = true;
    else if (fault.kind === "cut" || fault.kind === "stall") {
      keep = Math.min(keep, fault.afterBytes);
      isStalled = fault.kind === "stall";
    }
  }
  if (!isChunked) headers["content-length"] ??= String(body.length);
  response.writeHead(answer.status, headers);
  const trickle = faults.find((fault) => fault.kind === "trickle");
  if (record.method === "HEAD") response.end();
  else if (trickle?.kind === "trickle") sendSlowly(body, trickle, response);
  else if (keep === body.length) response.end(body);
  else {
    response.write(body.subarray(0, keep), () => {
      if (!isStalled) response.socket?.destroySoon();
    });
    if (keep === 0) response.flushHeaders();
    if (keep === 0 && !isStalled) response.socket?.destroySoon();
  }
}

function sendSlowly(
  body: Uint8Array,
  { bytes, everyMs }: { readonly bytes: number; readonly everyMs: number },
  response: ServerResponse,
): void {
  let offset = 0;
  const timer = setInterval(() => {
    response.write(body.subarray(offset, offset + bytes));
    offset += bytes;
    if (offset >= body.length) response.end();
  }, everyMs);
  response.on("close", () => {
    clearInterval(timer);
  });
}
