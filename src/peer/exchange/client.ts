/** What a node asks of its peers: blocks through the tree, maps, fetch orders, views, probes. */
import { abortReason, onAbort } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, errorCode, withContext } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import { FETCH_PRIORITY } from "../../block/index.ts";
import type { Digest } from "../../oci/index.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { Identity } from "../transport/identity.ts";
import { WIRE_VERSIONS } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";
import { PeerConnections } from "./connections.ts";
import type { ExchangeCounters } from "./counters.ts";
import { PeerHealth } from "./health.ts";
import type { Trouble } from "./health.ts";
import { readDocument } from "./documents.ts";
import type { DocumentReply } from "./documents.ts";
import {
  DOCUMENT_HEDGE_MS,
  DOCUMENT_SILENCE_MS,
  HEDGE_MS,
  PATH_MEMBERS_MAX,
  SILENCE_MS,
  TICK_MS,
  VIEW_BYTES_MAX,
} from "./limits.ts";
import { Pace } from "./pace.ts";
import { readMap, readOrder } from "./peer-streams.ts";
import type { OrderBatch } from "./peer-streams.ts";
import { rungsOf } from "./position.ts";
import type { PositionLookup } from "./position.ts";
import { documentResource, MEDIA_TYPE, mapResource, orderResource } from "./protocol.ts";
import type { DocumentQuestion } from "./providers.ts";
import { TreeSource } from "./tree-source.ts";
import type { TreeSourceLayer } from "./tree-source.ts";
import type { TreeReadContext } from "./tree-read.ts";
import { WaitBook } from "./wait-book.ts";

export interface ExchangeClientOptions {
  /** Our member id. */
  readonly selfId: string;
  /** Undefined: without TLS, for tests and measurements only. */
  readonly identity: Identity | undefined;
  readonly positions: PositionLookup;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The server's too: one book and one set of counters for a node. */
  readonly waits: WaitBook;
  readonly counters: ExchangeCounters;
  /** Silence since the last sign of life after which the next one up is asked too; 100 ms. */
  readonly hedgeMs?: number;
  /** Whether this member, which is no root, may read the registry now, its peers being silent. */
  readonly mayLeave?: (image: Digest) => boolean;
  readonly onRootLost?: (image: Digest) => void;
  /** Others than WIRE_VERSIONS: for tests of an upgrade. */
  readonly versions?: WireVersions;
  readonly onConvicted?: (peerId: string) => void;
  /** To be passed on to the tree's manager. */
  readonly onTrouble?: (image: string, peerId: string, trouble: Trouble) => void;
}

export interface FetchDocumentOptions {
  readonly signal: AbortSignal;
  /** Without a sign of life for so long the peer is given up; default 300. */
  readonly silenceMs?: number;
  /** Called once when it gave no sign of life for 300 ms; it is still waited for. */
  readonly onSilent?: (() => void) | undefined;
}

export interface FetchedMap {
  /** Bytes. */
  readonly size: number;
  /** Ends with an error when the peer breaks off: nothing of it may be used then. */
  readonly pieces: AsyncIterable<Uint8Array>;
  readonly from: PeerRef;
}

export class ExchangeClient implements Disposable {
  readonly #options: ExchangeClientOptions;
  readonly #connections: PeerConnections;
  readonly #context: TreeReadContext;
  readonly health: PeerHealth;

  constructor(options: ExchangeClientOptions) {
    this.#options = options;
    const { identity, clock, selfId, positions, waits, counters } = options;
    const { versions = WIRE_VERSIONS } = options;
    this.#connections = new PeerConnections({ identity, clock, versions });
    this.health = new PeerHealth(options);
    const { health } = this;
    const connections = this.#connections;
    this.#context = {
      selfId,
      connections,
      positions,
      health,
      waits,
      counters,
      clock,
      hedgeMs: options.hedgeMs ?? HEDGE_MS,
      pace: new Pace(clock),
      mayLeave: options.mayLeave ?? (() => false),
      onRootLost: options.onRootLost ?? (() => undefined),
    };
  }

  /** The tree as a source of the layer's blocks; one for each image that has the layer. */
  source(image: Digest, layer: TreeSourceLayer): TreeSource {
    return new TreeSource(this.#context, image, layer);
  }

  /**
   * A layer's map from the members above us, nearest first; `path` is that of the request that we
   * need it for. Each is left for the next when it refuses, breaks off, or is silent for 100 ms
   * before the map begins. `unavailable` when none of them gives it.
   */
  async fetchMap(
    image: Digest,
    diffId: string,
    options: { readonly signal: AbortSignal; readonly path?: readonly string[] },
  ): Promise<FetchedMap> {
    const position = this.#options.positions(image);
    const { waits, selfId } = this.#options;
    const key = WaitBook.mapKey(diffId);
    const path = [...(options.path ?? waits.pathOf(key)), selfId];
    let failure: unknown;
    if (position !== undefined && path.length <= PATH_MEMBERS_MAX) {
      for (const peer of rungsOf(position, selfId)) {
        if (this.health.isConvicted(peer.id) || waits.isWaitingHere(key, peer.id)) continue;
        try {
          return await this.#mapFrom(peer, { image, diffId, path, key, signal: options.signal });
        } catch (error) {
          if (options.signal.aborted) throw abortReason(options.signal);
          failure = error;
        }
      }
    }
    const what = `no member above us has the map of layer ${diffId}`;
    throw withContext(
      failure ?? new DaemonError("unavailable", "nobody to ask"),
      what,
      "unavailable",
    );
  }

  /** The map from one member, wherever it stands: one that was above us may be making it. */
  async fetchMapFrom(
    peer: PeerRef,
    image: Digest,
    diffId: string,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<FetchedMap> {
    const key = WaitBook.mapKey(diffId);
    const path = [...this.#options.waits.pathOf(key), this.#options.selfId];
    return this.#mapFrom(peer, { image, diffId, path, key, signal });
  }

  async #mapFrom(
    peer: PeerRef,
    asked: {
      readonly image: Digest;
      readonly diffId: string;
      readonly path: readonly string[];
      readonly key: string;
      readonly signal: AbortSignal;
    },
  ): Promise<FetchedMap> {
    const { waits, counters, selfId } = this.#options;
    const leave = waits.ask(asked.key, peer.id);
    const watch = new SignWatch(this.#context, asked.signal, this.#context.hedgeMs);
    counters.add(peer.id, "requestsOut");
    try {
      const reply = await this.#connections.request(peer, {
        method: "GET",
        resource: mapResource(asked.diffId, asked.image, asked.path),
        lane: "control",
        priority: FETCH_PRIORITY.reader,
        signal: watch.signal,
      });
      const map = await readMap(reply, {
        signal: watch.signal,
        peerId: peer.id,
        onSign: () => {
          watch.sign();
        },
        onTick: (ids) => {
          reply.slot.park();
          counters.add(peer.id, "ticksIn");
          waits.heard(asked.key, peer.id, ids);
          if (ids.includes(selfId)) watch.giveUp(`${peer.id} waits for us`);
        },
      });
      watch.relax();
      return { size: map.size, pieces: this.#counted(map.pieces, peer, watch), from: peer };
    } catch (error) {
      watch.stop();
      if (!asked.signal.aborted) this.#judge(asked.image, peer, error, watch);
      throw error;
    } finally {
      leave();
    }
  }

  /** What a map's failure says of the peer. */
  #judge(image: string, peer: PeerRef, error: unknown, watch: SignWatch): void {
    const code = errorCode(error);
    if (code === "data-loss") this.health.convict(image, peer.id, "a malformed reply");
    else if (watch.wasSilent) this.health.failed(image, peer.id, "silent");
    else if (code === "unavailable") this.health.failed(image, peer.id, "reset");
  }

  async *#counted(
    pieces: AsyncIterable<Uint8Array>,
    peer: PeerRef,
    watch: SignWatch,
  ): AsyncGenerator<Uint8Array> {
    try {
      for await (const piece of pieces) {
        this.#options.counters.add(peer.id, "bytesIn", piece.length);
        yield piece;
      }
      this.health.good(peer.id);
    } finally {
      watch.stop();
    }
  }

  /**
   * The peer's fetch order from position `from` on, as it grows, until the signal aborts or the
   * peer ends it. Ends with `unavailable` when the peer is silent for ten seconds.
   */
  async *followOrder(
    peer: PeerRef,
    image: Digest,
    options: { readonly from: number; readonly signal: AbortSignal },
  ): AsyncGenerator<OrderBatch> {
    const { counters } = this.#options;
    const watch = new SignWatch(this.#context, options.signal, SILENCE_MS);
    try {
      counters.add(peer.id, "requestsOut");
      const reply = await this.#connections.request(peer, {
        method: "GET",
        resource: orderResource(image, options.from),
        lane: "control",
        priority: FETCH_PRIORITY.prefetch,
        signal: watch.signal,
      });
      reply.slot.park();
      yield* readOrder(reply, {
        signal: watch.signal,
        peerId: peer.id,
        onSign: () => {
          watch.sign();
        },
        onTick: () => {
          counters.add(peer.id, "ticksIn");
        },
      });
    } finally {
      watch.stop();
    }
  }

  /**
   * What the peer says to the question. Rejects with `unavailable` when it cannot be reached,
   * breaks off, or gives no sign of life for `silenceMs`; with `data-loss` for a reply that no
   * honest member sends. Whether the document is the one that was asked for, the caller checks.
   */
  async fetchDocument(
    peer: PeerRef,
    question: DocumentQuestion,
    { signal, silenceMs = DOCUMENT_SILENCE_MS, onSilent }: FetchDocumentOptions,
  ): Promise<DocumentReply> {
    const { counters } = this.#options;
    const context = this.#context;
    const watch = new SignWatch(context, signal, silenceMs);
    const early =
      onSilent === undefined ? undefined : new SignWatch(context, signal, DOCUMENT_HEDGE_MS);
    early?.signal.addEventListener("abort", () => {
      if (early.wasSilent) onSilent?.(); // not when the asker leaves
    });
    const onSign = (): void => {
      watch.sign();
      early?.sign();
    };
    counters.add(peer.id, "requestsOut");
    try {
      const reply = await this.#connections.request(peer, {
        method: "GET",
        resource: documentResource(question),
        lane: "control",
        priority: FETCH_PRIORITY.reader,
        signal: watch.signal,
      });
      onSign();
      const answer = await readDocument(reply, {
        signal: watch.signal,
        peerId: peer.id,
        onSign,
        onTick: () => {
          reply.slot.park();
          counters.add(peer.id, "ticksIn");
        },
      });
      if (answer.kind === "document") {
        counters.add(peer.id, "bytesIn", answer.document.bytes.length);
      }
      return answer;
    } catch (error) {
      if (signal.aborted) throw abortReason(signal);
      counters.add(peer.id, "failures");
      throw error;
    } finally {
      watch.stop();
      early?.stop();
    }
  }

  /** Gives our records of the membership and takes the peer's. */
  async pushPull(
    to: PeerRef,
    records: Uint8Array,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Uint8Array> {
    const { response } = await this.#connections.request(to, {
      method: "POST",
      resource: "view",
      body: records,
      contentType: MEDIA_TYPE.view,
      lane: "control",
      priority: FETCH_PRIORITY.reader,
      signal,
    });
    try {
      return await response.bytes(VIEW_BYTES_MAX);
    } catch (error) {
      if (signal.aborted) throw abortReason(signal);
      throw withContext(error, `the view of ${to.id}`);
    }
  }

  /** Resolves when the peer answers over TLS: where UDP is blocked it lives all the same. */
  async probe(to: PeerRef, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const { response } = await this.#connections.request(to, {
      method: "GET",
      resource: "probe",
      lane: "control",
      priority: FETCH_PRIORITY.reader,
      signal,
    });
    response.resume();
  }

  [Symbol.dispose](): void {
    this.#connections[Symbol.dispose]();
  }
}

/** Aborts when the peer gives no sign of life. */
class SignWatch {
  readonly #clock: Clock;
  readonly #pace: Pace;
  readonly #controller = new AbortController();
  readonly #stopOuter: () => void;
  #lastMs: number;
  #limitMs: number;
  #cancel: (() => void) | undefined;
  wasSilent = false;

  constructor(
    { clock, pace }: Pick<TreeReadContext, "clock" | "pace">,
    signal: AbortSignal,
    limitMs: number,
  ) {
    this.#clock = clock;
    this.#pace = pace;
    this.#limitMs = limitMs;
    this.#lastMs = clock.nowMs();
    if (signal.aborted) throw abortReason(signal);
    this.#stopOuter = onAbort(signal, (reason) => {
      this.#controller.abort(reason);
    });
    this.#arm();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  sign(): void {
    this.#lastMs = this.#clock.nowMs();
  }

  /** It has shown that it lives: from now on only long silence counts. */
  relax(): void {
    this.sign();
    this.#limitMs = SILENCE_MS;
  }

  giveUp(reason: string): void {
    this.#controller.abort(new DaemonError("failed-precondition", reason));
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#stopOuter();
  }

  #arm(): void {
    const dueMs = this.#clock.nowMs() + TICK_MS;
    this.#cancel = this.#clock.timer(TICK_MS, () => {
      this.#pace.note(this.#clock.nowMs() - dueMs);
      // What has arrived while this process was busy is read first.
      setImmediate(() => {
        if (this.#cancel === undefined) return;
        if (this.#clock.nowMs() - this.#lastMs < this.#pace.patienceMs(this.#limitMs)) {
          this.#arm();
          return;
        }
        this.wasSilent = true;
        this.#controller.abort(new DaemonError("unavailable", "the peer is silent"));
      });
    });
  }
}
