/** What the node needs of reliable streams; the exchange's TLS connections give it. */
import type { PeerRef } from "../peer-ref.ts";

export interface Streams {
  /** Sends a whole view and resolves with the other's. Rejects when it cannot be reached. */
  pushPull(
    to: PeerRef,
    records: Uint8Array,
    options: { readonly signal: AbortSignal },
  ): Promise<Uint8Array>;
  /** Resolves when the member answers, and is the one that is meant. */
  probe(to: PeerRef, options: { readonly signal: AbortSignal }): Promise<void>;
}

/** For a node without an exchange: gossip alone. */
export const noStreams: Streams = {
  pushPull: async () => Promise.reject(new Error("no streams")),
  probe: async () => Promise.reject(new Error("no streams")),
};
