/** Connections to the peers that we fetch from: kept open, few, and each checked for its owner. */
import { createSecureContext } from "node:tls";
import type { ConnectionOptions, PeerCertificate, SecureContext } from "node:tls";
import { throwIfAborted } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { DaemonError, withContext } from "../../base/errors.ts";
import type { FetchPriority } from "../../block/index.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { Identity } from "../transport/identity.ts";
import { memberMismatch } from "../transport/identity.ts";
import { spokenVersion } from "../wire-versions.ts";
import type { WireVersions } from "../wire-versions.ts";
import { Lane } from "./lane.ts";
import type { LaneName, LaneSlot } from "./lane.ts";
import { PEERS_MAX, PEER_IDLE_MS } from "./limits.ts";
import { REFUSAL_BYTES_MAX, decodeError, targetOf } from "./protocol.ts";
import { WirePool } from "./wire.ts";
import type { WireReply } from "./wire.ts";

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
  readonly response: WireReply;
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
  readonly pools: Readonly<Record<LaneName, WirePool>>;
  usedMs: number;
  lastSignMs = 0;

  constructor(peer: PeerRef, makePool: () => WirePool, nowMs: number) {
    this.peer = peer;
    this.pools = { demand: makePool(), bulk: makePool(), control: makePool() };
    this.usedMs = nowMs;
  }

  get isIdle(): boolean {
    return Object.values(this.lanes).every(({ counts }) => {
      return counts.flowing + counts.parked + counts.queued === 0;
    });
  }

  close(): void {
    for (const pool of Object.values(this.pools)) pool.destroy();
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
  /** Making it parses keys and certificates: once for all peers. */
  #secureContext: SecureContext | undefined;
  #readBuffer: Buffer | undefined;
  #cancelTimer: (() => void) | undefined;
  #isClosed = false;

  constructor({ identity, clock, versions }: PeerConnectionsOptions) {
    this.#identity = identity;
    this.#clock = clock;
    this.#versions = versions;
    this.#stopRotation = identity?.onRotate(() => {
      // What is under way goes on; the next request brings the new certificate.
      this.#links.clear();
      this.#secureContext = undefined;
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
      const response = await this.#send(link, request);
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

  async #send(link: PeerLink, request: PeerRequest): Promise<WireReply> {
    const { method, resource, body, contentType, signal } = request;
    const sent = {
      method,
      target: targetOf(spokenVersion(this.#versions, link.peer.version), resource),
      ...(body === undefined ? {} : { body }),
      ...(contentType === undefined ? {} : { contentType }),
    };
    try {
      return await link.pools[request.lane].send(sent, {
        signal,
        onSent: () => {
          request.onSent?.();
        },
      });
    } catch (error) {
      if (error instanceof DaemonError) throw error;
      throw withContext(error, `${link.peer.id} cannot be reached`, "unavailable");
    }
  }

  #open(peer: PeerRef): PeerLink {
    if (this.#isClosed) throw new DaemonError("canceled", "the connections are closed");
    const known = this.#links.get(peer.id);
    this.#links.delete(peer.id);
    const isSame = known !== undefined && isSamePlace(known.peer, peer);
    if (known !== undefined && !isSame && known.isIdle) known.close();
    const nowMs = this.#clock.nowMs();
    const link = isSame ? known : this.#makeLink(peer, nowMs);
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

  #makeLink(peer: PeerRef, nowMs: number): PeerLink {
    this.#readBuffer ??= WirePool.readBuffer();
    const place = { host: peer.address.host, port: peer.exchangePort, buffer: this.#readBuffer };
    const tls = this.#identity === undefined ? undefined : this.#tlsOf(this.#identity, peer.id);
    return new PeerLink(peer, () => new WirePool({ ...place, tls }), nowMs);
  }

  #tlsOf({ tls }: Identity, peerId: string): ConnectionOptions {
    this.#secureContext ??= createSecureContext(tls);
    return {
      secureContext: this.#secureContext,
      minVersion: tls.minVersion,
      rejectUnauthorized: true,
      ALPNProtocols: ["http/1.1"],
      servername: "",
      // Not called for a resumed session, which has no certificate: but only this peer's pools
      // have the sessions, and only from connections that passed.
      checkServerIdentity: (_host: string, { raw }: PeerCertificate) => memberMismatch(raw, peerId),
    };
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

/** Throws what the peer said when it refused; the connection is kept when it said it briefly. */
async function refuseErrors(response: WireReply, who: string): Promise<void> {
  const status = response.statusCode;
  if (status >= 200 && status < 300) return;
  const body = await response.bytes(REFUSAL_BYTES_MAX).catch(() => Buffer.alloc(0));
  throw decodeError(body, who);
}
