/** Connections to the peers that we fetch from: kept open, few, and each checked for its owner. */
import { Agent as ClearAgent, request as clearRequest } from "node:http";
import type { ClientRequest, IncomingMessage, RequestOptions } from "node:http";
import { Agent as TlsAgent, request as tlsRequest } from "node:https";
import { createSecureContext } from "node:tls";
import type { PeerCertificate } from "node:tls";
import { onAbort, throwIfAborted } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, systemErrorName, withContext } from "../../base/errors.ts";
import type { FetchPriority } from "../../block/index.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { Identity } from "../transport/identity.ts";
import { memberMismatch } from "../transport/identity.ts";
import { spokenVersion } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";
import { Lane } from "./lane.ts";
import type { LaneName, LaneSlot } from "./lane.ts";
import {
  CLIENT_KEEP_ALIVE_MS,
  HEADER_BYTES_MAX,
  LANE_FLOWING_MAX,
  PEERS_MAX,
  PEER_IDLE_MS,
} from "./limits.ts";
import { REFUSAL_BYTES_MAX, decodeError, targetOf } from "./protocol.ts";

export interface PeerRequest {
  readonly method: "GET" | "POST";
  /** Below the version's prefix: `blocks`. */
  readonly resource: string;
  readonly body?: Uint8Array;
  readonly contentType?: string;
  readonly lane: LaneName;
  readonly priority: FetchPriority;
  readonly signal: AbortSignal;
  /** Called when the request has its connection, or gets a new one. */
  readonly onSent?: () => void;
}

/** A reply whose status is 2xx; the receiver reads or destroys it. */
export interface PeerReply {
  readonly response: IncomingMessage;
  readonly slot: LaneSlot;
}

/** One peer: its connections by lane, closed when it is not used for long. */
class PeerLink {
  readonly peer: PeerRef;
  readonly lanes: Readonly<Record<LaneName, Lane>> = {
    demand: new Lane(),
    bulk: new Lane(),
    control: new Lane(),
  };
  readonly agents: Readonly<Record<LaneName, ClearAgent | TlsAgent>>;
  usedMs: number;
  lastSignMs = 0;

  constructor(peer: PeerRef, agents: PeerLink["agents"], nowMs: number) {
    this.peer = peer;
    this.agents = agents;
    this.usedMs = nowMs;
  }

  get isIdle(): boolean {
    return Object.values(this.lanes).every(({ counts }) => {
      return counts.flowing + counts.parked + counts.queued === 0;
    });
  }

  close(): void {
    for (const agent of Object.values(this.agents)) agent.destroy();
  }
}

export interface PeerConnectionsOptions {
  /** Undefined: without TLS, for tests and measurements only. */
  readonly identity: Identity | undefined;
  readonly clock: Clock;
  readonly versions: WireVersions;
}

export class PeerConnections implements Disposable {
  readonly #identity: Identity | undefined;
  readonly #clock: Clock;
  readonly #versions: WireVersions;
  /** By member id; the least recently used first. */
  readonly #links = new Map<string, PeerLink>();
  readonly #stopRotation: (() => void) | undefined;
  #cancelTimer: (() => void) | undefined;
  #isClosed = false;

  constructor({ identity, clock, versions }: PeerConnectionsOptions) {
    this.#identity = identity;
    this.#clock = clock;
    this.#versions = versions;
    this.#stopRotation = identity?.onRotate(() => {
      // What is under way goes on; the next request brings the new certificate.
      this.#links.clear();
    });
  }

  /** When a sign of life last came from the peer, on any connection; 0: never. */
  lastSignMs(peerId: string): number {
    return this.#links.get(peerId)?.lastSignMs ?? 0;
  }

  noteSign(peerId: string): void {
    const link = this.#links.get(peerId);
    if (link !== undefined) link.lastSignMs = this.#clock.nowMs();
  }

  /**
   * Resolves when a reply has begun. Rejects with the peer's own refusal, `unavailable` when it
   * cannot be reached or broke off, `unauthenticated` when another than the peer answers.
   */
  async request(peer: PeerRef, request: PeerRequest): Promise<PeerReply> {
    throwIfAborted(request.signal);
    const link = this.#open(peer);
    const slot = await link.lanes[request.lane].enter(request.priority, request);
    try {
      const response = await this.#send(link, request, true);
      response.once("close", () => {
        slot.release();
      });
      await refuseErrors(response, peer.id);
      return { response, slot };
    } catch (error) {
      slot.release();
      throw error;
    } finally {
      link.usedMs = this.#clock.nowMs();
    }
  }

  /** Ends everything under way. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#cancelTimer?.();
    this.#stopRotation?.();
    for (const link of this.#links.values()) link.close();
    this.#links.clear();
  }

  async #send(link: PeerLink, request: PeerRequest, mayRepeat: boolean): Promise<IncomingMessage> {
    let sent: ClientRequest | undefined;
    try {
      return await new Promise<IncomingMessage>((resolve, reject) => {
        throwIfAborted(request.signal);
        const outgoing = this.#start(link, request);
        sent = outgoing;
        const stop = onAbort(request.signal, (reason) => {
          outgoing.destroy(reason);
        });
        outgoing.on("error", reject);
        outgoing.once("close", stop);
        outgoing.once("response", (response) => {
          response.on("error", () => undefined);
          resolve(response);
        });
        outgoing.end(request.body);
      });
    } catch (error) {
      if (error instanceof DaemonError) throw error;
      // An idle connection that the peer closed just as we used it says nothing about the peer.
      const isStale = sent?.reusedSocket === true && isBrokenOff(error);
      if (isStale && mayRepeat) return this.#send(link, request, false);
      throw withContext(error, `${link.peer.id} cannot be reached`, "unavailable");
    }
  }

  #start(link: PeerLink, request: PeerRequest): ClientRequest {
    const { peer, agents } = link;
    const { body, contentType, resource, method } = request;
    const options: RequestOptions = {
      agent: agents[request.lane],
      host: peer.address.host,
      port: peer.exchangePort,
      method,
      path: targetOf(spokenVersion(this.#versions, peer.version), resource),
      maxHeaderSize: HEADER_BYTES_MAX,
      headers: {
        host: "faasnet",
        ...(contentType === undefined ? {} : { "content-type": contentType }),
        ...(body === undefined ? {} : { "content-length": body.length }),
      },
    };
    const outgoing = this.#identity === undefined ? clearRequest(options) : tlsRequest(options);
    outgoing.on("socket", () => {
      request.onSent?.();
    });
    return outgoing;
  }

  #open(peer: PeerRef): PeerLink {
    if (this.#isClosed) throw new DaemonError("canceled", "the connections are closed");
    const known = this.#links.get(peer.id);
    this.#links.delete(peer.id);
    const isSame = known !== undefined && isSamePlace(known.peer, peer);
    if (known !== undefined && !isSame && known.isIdle) known.close();
    const nowMs = this.#clock.nowMs();
    const link = isSame ? known : new PeerLink(peer, this.#makeAgents(peer.id), nowMs);
    this.#links.set(peer.id, link);
    link.usedMs = nowMs;
    if (this.#links.size > PEERS_MAX) this.#closeIdle(0);
    this.#cancelTimer ??= this.#clock.timer(PEER_IDLE_MS, () => {
      this.#cancelTimer = undefined;
      this.#closeIdle(PEER_IDLE_MS);
    });
    return link;
  }

  #closeIdle(idleMs: number): void {
    const nowMs = this.#clock.nowMs();
    for (const [id, link] of this.#links) {
      if (idleMs === 0 && this.#links.size <= PEERS_MAX) return;
      if (!link.isIdle || nowMs - link.usedMs < idleMs) continue;
      link.close();
      this.#links.delete(id);
    }
  }

  #makeAgents(peerId: string): PeerLink["agents"] {
    const options = {
      keepAlive: true,
      maxFreeSockets: LANE_FLOWING_MAX,
      timeout: CLIENT_KEEP_ALIVE_MS,
      scheduling: "lifo",
      noDelay: true,
    } as const;
    const identity = this.#identity;
    if (identity === undefined) {
      const clear = (): ClearAgent => new ClearAgent(options);
      return { demand: clear(), bulk: clear(), control: clear() };
    }
    const { tls } = identity;
    const secure = {
      ...options,
      secureContext: createSecureContext(tls),
      minVersion: tls.minVersion,
      rejectUnauthorized: true,
      ALPNProtocols: ["http/1.1"],
      servername: "",
      // Not called for a resumed session, which has no certificate: but only this peer's agents
      // have the sessions, and only from connections that passed.
      checkServerIdentity: (_host: string, { raw }: PeerCertificate) => memberMismatch(raw, peerId),
    };
    const make = (): TlsAgent => new TlsAgent(secure);
    return { demand: make(), bulk: make(), control: make() };
  }
}

function isSamePlace(one: PeerRef, other: PeerRef): boolean {
  return (
    one.boot === other.boot &&
    one.address.host === other.address.host &&
    one.exchangePort === other.exchangePort &&
    one.version === other.version
  );
}

function isBrokenOff(error: unknown): boolean {
  const name = systemErrorName(error);
  return name === "ECONNRESET" || name === "EPIPE";
}

/** Throws what the peer said when it refused; the connection is kept when it said it briefly. */
async function refuseErrors(response: IncomingMessage, who: string): Promise<void> {
  const status = response.statusCode ?? 0;
  if (status >= 200 && status < 300) return;
  const pieces: Buffer[] = [];
  let length = 0;
  const body = await new Promise<Buffer>((resolve) => {
    response.on("data", (piece: Buffer) => {
      length += piece.length;
      if (length <= REFUSAL_BYTES_MAX) pieces.push(piece);
      else response.destroy();
    });
    response.once("close", () => {
      resolve(Buffer.concat(pieces));
    });
  });
  throw decodeError(body, who);
}
