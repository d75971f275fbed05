/** Where this node stands in an image's function tree, as far as the exchange needs it. */
import type { PeerRef } from "../peer-ref.ts";

export interface TreeEpoch {
  readonly counter: number;
  /** Member id. */
  readonly manager: string;
}

/** What the tree module's `Position` has. */
export interface TreePosition {
  readonly epoch: TreeEpoch;
  readonly depth: number;
  readonly parent?: PeerRef | undefined;
  readonly grandparent?: PeerRef | undefined;
  readonly root: PeerRef;
  readonly isRoot: boolean;
}

/** Of an image (manifest digest, `sha256:…`); undefined: in no tree of it. */
export type PositionLookup = (image: string) => TreePosition | undefined;

/** Whom to ask, nearest first, each once and never ourselves. */
export function rungsOf(position: TreePosition, selfId: string): PeerRef[] {
  if (position.isRoot) return [];
  const rungs: PeerRef[] = [];
  for (const peer of [position.parent, position.grandparent, position.root]) {
    if (peer === undefined || peer.id === selfId) continue;
    if (!rungs.some((other) => other.id === peer.id)) rungs.push(peer);
  }
  return rungs;
}
