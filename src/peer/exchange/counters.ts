/** What was exchanged with whom, for status and metrics. Numbers only ever grow. */
import { COUNTED_PEERS_MAX } from "./limits.ts";

export interface PeerCounters {
  /** Bytes of blocks and maps that came from it, and that went to it. */
  bytesIn: number;
  bytesOut: number;
  blocksIn: number;
  blocksOut: number;
  requestsIn: number;
  requestsOut: number;
  /** Requests that failed: refused, reset, silent. */
  failures: number;
  /** Requests to it because another was silent. */
  hedges: number;
  /** Requests to it, the root, because another had not got the block. */
  jumps: number;
  /** Blocks with the wrong digest and replies that broke the protocol. */
  convictions: number;
  ticksIn: number;
  ticksOut: number;
  /** Blocks that it asked for in vain: it was told to ask the root. */
  notHere: number;
  /** Replies to it that were cut off. */
  cutOff: number;
  /** Blocks that it was too slow to take while they came. */
  fellBehind: number;
}

export type PeerCounterName = keyof PeerCounters;

function zeroCounters(): PeerCounters {
  return {
    bytesIn: 0,
    bytesOut: 0,
    blocksIn: 0,
    blocksOut: 0,
    requestsIn: 0,
    requestsOut: 0,
    failures: 0,
    hedges: 0,
    jumps: 0,
    convictions: 0,
    ticksIn: 0,
    ticksOut: 0,
    notHere: 0,
    cutOff: 0,
    fellBehind: 0,
  };
}

export class ExchangeCounters {
  readonly #peers = new Map<string, PeerCounters>();
  /** All peers together, those that were forgotten too. */
  readonly total: PeerCounters = zeroCounters();

  add(peerId: string, name: PeerCounterName, amount = 1): void {
    this.total[name] += amount;
    this.#of(peerId)[name] += amount;
  }

  /** By member id: the peers that were dealt with last. */
  byPeer(): ReadonlyMap<string, Readonly<PeerCounters>> {
    return this.#peers;
  }

  #of(peerId: string): PeerCounters {
    const known = this.#peers.get(peerId);
    if (known !== undefined) return known;
    const fresh = zeroCounters();
    this.#peers.set(peerId, fresh);
    const [oldest] = this.#peers.keys();
    if (this.#peers.size > COUNTED_PEERS_MAX && oldest !== undefined) this.#peers.delete(oldest);
    return fresh;
  }
}
