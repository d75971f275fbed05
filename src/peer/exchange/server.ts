/** Serves blocks, maps, fetch orders and views to members, and `/v2/` to any OCI client. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { Scope } from "../../base/scope.ts";
import { SocketQueues } from "../../base/socket-queue.ts";
import { FETCH_PRIORITY } from "../../block/index.ts";
import type { Identity } from "../transport/identity.ts";
import type { PeerName } from "../transport/identity-names.ts";
import { WIRE_VERSIONS } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";
import { BlockReply } from "./block-reply.ts";
import type { BlockOutcome } from "./block-reply.ts";
import { StreamLimit } from "./children.ts";
import type { ExchangeCounters } from "./counters.ts";
import { sendDocument } from "./documents.ts";
import { EpochBook } from "./epochs.ts";
import { ChunkPool, FrameSender } from "./frame-sender.ts";
import { HttpListener } from "./http-server.ts";
import { isLoopbackHost, isLoopbackName } from "./loopback.ts";
import type { ListenAddress } from "./http-server.ts";
import {
  REQUEST_BYTES_MAX,
  STREAMS_MAX,
  STREAMS_PER_CHILD_MAX,
  UNSENT_BYTES_MAX,
  VIEW_BYTES_MAX,
} from "./limits.ts";
import { MissBook } from "./miss-book.ts";
import type { PositionLookup } from "./position.ts";
import { EXCHANGE_PREFIX, MEDIA_TYPE, parseBlocksRequest, parseTarget } from "./protocol.ts";
import type { BlocksRequest, ExchangeTarget } from "./protocol.ts";
import type {
  BlockProvider,
  DocumentProvider,
  MapProvider,
  OrderProvider,
  SharedDocumentProvider,
  ViewProvider,
} from "./providers.ts";
import { RegistryFace } from "./registry-face.ts";
import { readBody, refuse, signalOf } from "./reply.ts";
import { sendMap, sendOrder } from "./stream-replies.ts";
import { UploadLimiter } from "./upload.ts";
import { WaitBook } from "./wait-book.ts";

export interface BlockServerOptions {
  /** Our member id. */
  readonly selfId: string;
  /** Undefined: only `listenClear` can be used. */
  readonly identity: Identity | undefined;
  readonly positions: PositionLookup;
  readonly blocks: BlockProvider;
  readonly maps: MapProvider;
  readonly orders: OrderProvider;
  readonly views: ViewProvider;
  /** Undefined: no `/v2/`. */
  readonly documents?: DocumentProvider | undefined;
  /** Undefined: members are given no documents. */
  readonly shared?: SharedDocumentProvider | undefined;
  /** The same one that the node's `TreeSource`s have. */
  readonly waits: WaitBook;
  readonly counters: ExchangeCounters;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly uploadBytesPerSecond?: number | undefined;
  /** Others than WIRE_VERSIONS: for tests of an upgrade. */
  readonly versions?: WireVersions;
}

const OUTCOME_COUNTER = {
  sent: "blocksOut",
  "fell-behind": "fellBehind",
  "not-here": "notHere",
  failed: "failures",
  "cut-off": "cutOff",
} as const satisfies Record<BlockOutcome, string>;

export class BlockServer implements AsyncDisposable {
  readonly #options: BlockServerOptions;
  readonly #scope = new Scope();
  readonly #pool = new ChunkPool();
  readonly #limiter: UploadLimiter;
  readonly #streams = new StreamLimit({ perChild: STREAMS_PER_CHILD_MAX, all: STREAMS_MAX });
  readonly #epochs: EpochBook;
  readonly #misses = new MissBook();
  readonly #registry: RegistryFace | undefined;
  readonly #listeners: HttpListener[] = [];
  #queues: SocketQueues | undefined;

  constructor(options: BlockServerOptions) {
    this.#options = options;
    const { clock, positions, documents, uploadBytesPerSecond } = options;
    this.#limiter = new UploadLimiter(clock, { bytesPerSecond: uploadBytesPerSecond });
    this.#epochs = new EpochBook(positions, clock);
    this.#registry = documents === undefined ? undefined : new RegistryFace(documents);
  }

  /** Streams being served, and connections that got no further than a handshake. */
  get counts(): { readonly streams: number; readonly strangers: number } {
    const strangers = this.#listeners.reduce((sum, listener) => sum + listener.strangers, 0);
    return { streams: this.#streams.size, strangers };
  }

  /** For members and exported client certificates: mutual TLS. */
  async listen(address: ListenAddress): Promise<ListenAddress> {
    const { identity } = this.#options;
    if (identity === undefined) {
      throw new DaemonError("failed-precondition", "serving members needs an identity");
    }
    const listener = HttpListener.tls(identity, (request, response) => {
      void this.#handle(request, response, listener.nameOf(request.socket));
    });
    return this.#listen(listener, address);
  }

  /** `/v2/` alone, for programs on this machine; `invalid-argument` for any other address. */
  async listenClear(address: ListenAddress): Promise<ListenAddress> {
    if (!isLoopbackHost(address.host)) {
      const what = `${address.host} is not a loopback address: only those are served without TLS`;
      throw new DaemonError("invalid-argument", what);
    }
    const listener = HttpListener.clear((request, response) => {
      if (isLoopbackName(request.headers.host)) {
        void this.#handle(request, response, { kind: "client", name: "loopback" });
        return;
      }
      // A browser's page may have its own name point here (DNS rebinding): it still says that name.
      const what = "only requests to a loopback address or localhost are served here";
      refuse(request, response, new DaemonError("permission-denied", what));
    });
    return this.#listen(listener, address);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  async #listen(listener: HttpListener, address: ListenAddress): Promise<ListenAddress> {
    this.#scope.use(listener);
    this.#listeners.push(listener);
    const queues = await SocketQueues.open();
    this.#queues = queues;
    listener.onConnection((socket) => {
      queues?.limitUnsent(socket, UNSENT_BYTES_MAX);
    });
    return listener.listen(address);
  }

  /** Answers a request of `peer`; never rejects. */
  async #handle(
    request: IncomingMessage,
    response: ServerResponse,
    peer: PeerName | undefined,
  ): Promise<void> {
    const signal = signalOf(response);
    try {
      if (peer === undefined) throw new DaemonError("unauthenticated", "who are you?");
      const target = request.url ?? "";
      if (target.startsWith(EXCHANGE_PREFIX)) {
        await this.handleMember(request, response, { peer, signal });
      } else if (this.#registry !== undefined) {
        await this.#registry.handle(request, response, { signal });
      } else {
        throw new DaemonError("not-found", "no such resource");
      }
    } catch (error) {
      const fields = { method: request.method, target: (request.url ?? "").slice(0, 200) };
      this.#options.logger.debug("exchange-refused", { ...fields, err: error });
      refuse(request, response, error);
    }
  }

  /** A request below `/faasnet/`; rejects when it is to be refused. */
  async handleMember(
    request: IncomingMessage,
    response: ServerResponse,
    { peer, signal }: { readonly peer: PeerName; readonly signal: AbortSignal },
  ): Promise<void> {
    if (peer.kind !== "member") {
      throw new DaemonError("permission-denied", "this is for members of the cluster");
    }
    const { versions = WIRE_VERSIONS } = this.#options;
    const target = parseTarget(request.method ?? "", request.url ?? "", versions);
    const [id = ""] = peer.ids;
    if (target.kind === "blocks") {
      await this.#blocks(request, response, { ids: peer.ids, signal });
    } else if (target.kind === "view") {
      const records = await readBody(request, VIEW_BYTES_MAX);
      const reply = await this.#options.views(records, { signal, from: id });
      const headers = { "content-type": MEDIA_TYPE.view, "content-length": reply.length };
      response.writeHead(200, headers);
      response.end(reply);
    } else if (target.kind === "map" || target.kind === "order" || target.kind === "document") {
      await this.#stream(response, { target, id, signal });
    } else {
      response.writeHead(204);
      response.end();
    }
  }

  async #blocks(
    request: IncomingMessage,
    response: ServerResponse,
    { ids, signal }: { readonly ids: readonly string[]; readonly signal: AbortSignal },
  ): Promise<void> {
    const { provider, waits, counters } = this.#parts;
    const asked = parseBlocksRequest(await readBody(request, REQUEST_BYTES_MAX));
    const childId = asked.path.at(-1) ?? "";
    if (!ids.includes(childId)) {
      throw new DaemonError("permission-denied", `the certificate is not ${childId}'s`);
    }
    this.#checkPath(asked.path);
    const mayFetch = this.#mayFetch(asked);
    const leave = this.#streams.enter(childId);
    counters.add(childId, "requestsIn");
    try {
      const sender = this.#sender(response, {
        id: childId,
        priority: asked.priority,
        waitsFor: () => reply.waitsFor,
      });
      const reply = new BlockReply({
        request: asked,
        sender,
        provider,
        waits,
        misses: this.#misses,
        mayFetch,
        signal,
        onBlock: (outcome) => {
          counters.add(childId, OUTCOME_COUNTER[outcome]);
        },
      });
      beginFrames(response);
      await reply.run();
    } finally {
      leave();
    }
  }

  async #stream(
    response: ServerResponse,
    options: {
      readonly target: Extract<ExchangeTarget, { kind: "map" | "order" | "document" }>;
      readonly id: string;
      readonly signal: AbortSignal;
    },
  ): Promise<void> {
    const { target, id, signal } = options;
    const { maps, orders, shared, waits, counters } = this.#options;
    if (target.kind === "map") this.#checkPath(target.path);
    if (target.kind === "document" && shared === undefined) {
      throw new DaemonError("not-found", "no documents are shared here");
    }
    const leave = this.#streams.enter(id);
    counters.add(id, "requestsIn");
    try {
      const key = target.kind === "map" ? WaitBook.mapKey(target.diffId) : undefined;
      const sender = this.#sender(response, {
        id,
        priority: target.kind === "document" ? FETCH_PRIORITY.reader : FETCH_PRIORITY.readAhead,
        waitsFor: () => (key === undefined ? [] : waits.waitsFor(key)),
      });
      beginFrames(response);
      if (target.kind === "map") await sendMap({ target, maps, waits, sender, signal });
      else if (target.kind === "order") await sendOrder({ target, orders, sender, signal });
      else if (shared !== undefined) {
        await sendDocument({ question: target.question, shared, sender, signal });
      }
    } catch (error) {
      this.#options.logger.debug("exchange-stream-failed", { code: errorCode(error) });
      response.destroy(new DaemonError(errorCode(error), errorMessage(error)));
    } finally {
      leave();
    }
  }

  get #parts(): {
    readonly provider: BlockProvider;
    readonly waits: WaitBook;
    readonly counters: ExchangeCounters;
  } {
    const { blocks, waits, counters } = this.#options;
    return { provider: blocks, waits, counters };
  }

  #sender(
    response: ServerResponse,
    options: {
      readonly id: string;
      readonly priority: BlocksRequest["priority"];
      readonly waitsFor: () => readonly string[];
    },
  ): FrameSender {
    const { clock, counters } = this.#options;
    const { socket } = response; // it leaves the response when that has ended
    return new FrameSender(response, {
      clock,
      pool: this.#pool,
      limiter: this.#limiter,
      priority: options.priority,
      waitsFor: options.waitsFor,
      onSent: (bytes) => {
        counters.add(options.id, "bytesOut", bytes);
      },
      unackedBytes: () => (socket === null ? 0 : (this.#queues?.unackedBytes(socket) ?? 0)),
      onTick: () => {
        counters.add(options.id, "ticksOut");
      },
    });
  }

  #checkPath(path: readonly string[]): void {
    if (path.includes(this.#options.selfId)) {
      throw new DaemonError("failed-precondition", "the request has passed here before");
    }
  }

  #mayFetch({ image, epoch, isRootLost }: BlocksRequest): "always" | "for-two" | "never" {
    const answer = this.#epochs.check(image, epoch);
    if (answer === "unknown") {
      const what = `epoch ${epoch.counter} of ${epoch.manager} is not this tree's`;
      throw new DaemonError("failed-precondition", what);
    }
    if (answer === "none") return "never";
    const isRoot = this.#options.positions(image)?.isRoot === true;
    return isRoot || isRootLost === true ? "always" : "for-two";
  }
}

/** Headers at once: a reply that begins is the first sign of life. */
function beginFrames(response: ServerResponse): void {
  response.writeHead(200, { "content-type": MEDIA_TYPE.frames });
  response.flushHeaders();
}
