/**
 * What `faasnet peers` and `faasnet tree` are answered (Image.Peers, Image.Trees and Image.Mirror
 * of proto/control.proto, as JSON). Types only; the command line's parsers are
 * src/cli/peer-reports.ts. A field may be added but never change its meaning.
 */
import type { FindingKind } from "../peer/index.ts";

/** What keeps members apart, as this side sees it; docs/peers.md says what to do about each. */
export type PeerProblemKind = FindingKind;

export type MemberState = "alive" | "suspect" | "dead" | "left";

export interface PeerProblemReport {
  /** A `PeerProblemKind`, or a newer daemon's. */
  readonly kind: string;
  /** A member's name where one is known, else an address, a seed's entry or a file. */
  readonly who: string;
  /** One line for a person: what was seen and what to do. */
  readonly detail: string;
  readonly count: number;
  /** Since it was seen last. */
  readonly secondsAgo: number;
}

/** Whether packets (UDP) or streams (TCP) get through. */
export type Reach = "unknown" | "ok" | "silent";

export interface PeerReport {
  /** Its member id: `[peer] name`. */
  readonly name: string;
  readonly state: MemberState;
  /** For how long it has been in that state. */
  readonly stateSeconds: number;
  /** UDP, as it advertises it. */
  readonly address: string;
  /** TCP, where its blocks come from. */
  readonly exchangeAddress: string;
  readonly zone: string;
  readonly wireVersion: number;
  readonly isSelf: boolean;
  readonly isSeed: boolean;
  /** Of the last answered probe; null: none was answered yet, or it is ourselves. */
  readonly roundTripMs: number | null;
  /** How far its wall clock is ahead of ours; null where it is not known. */
  readonly clockAheadMs: number | null;
  readonly udp: Reach;
  readonly tcp: Reach;
}

/** One entry of `[peer] seeds`. */
export interface SeedReport {
  readonly entry: string;
  /** What it stands for now. */
  readonly addresses: readonly string[];
  /** Why it stands for nothing; null when all is well. */
  readonly error: string | null;
}

export interface PeersReport {
  /** False: `[peer]` is off; everything else is empty then. */
  readonly enabled: boolean;
  /** Our own member id; empty when off. */
  readonly self: string;
  /** Lifeguard's local health: 0 is healthy, each step makes our own time-outs longer. */
  readonly healthScore: number;
  /** By name, with ourselves. */
  readonly members: readonly PeerReport[];
  readonly seeds: readonly SeedReport[];
  readonly problems: readonly PeerProblemReport[];
  /**
   * What was not taken since the start: packets by reason (`malformed`, `unknown-key`, `forged`,
   * `replayed`, `own`, `bad-content`, `other-version`), and `connections` that did not get past the
   * handshake.
   */
  readonly refused: Readonly<Record<string, number>>;
  /**
   * Manifests and configs that this node has had since its start, by where from: `store` (known
   * here), `owner` (the repository's owner), `member` (another that had it), `registry`.
   */
  readonly documentsBySource: Readonly<Record<string, number>>;
}

/** Blocks and their bytes as they were sent (compressed), by where they came from. */
export interface SourceReport {
  readonly blocks: number;
  readonly bytes: number;
}

export interface TreeMemberReport {
  readonly name: string;
  readonly zone: string;
  /** In its zone's array: 0 is the zone's root. */
  readonly slot: number;
  /** Whom it fetches from; null: the root, which fetches from the registry. */
  readonly parent: string | null;
  readonly blocksHeld: number;
  /** From parents and the registry, since it joined; null where this node has not been told. */
  readonly bytesIn: number | null;
  /** To children, since it joined; null where this node has not been told. */
  readonly bytesOut: number | null;
}

export interface TreeReport {
  /** The image's manifest digest. */
  readonly image: string;
  /** As a client gave it here; empty when only the digest is known. */
  readonly reference: string;
  /** Blocks of all its layers together. */
  readonly blocks: number;
  readonly epoch: { readonly counter: number; readonly manager: string };
  /** Of the whole tree, also where `members` is only a part of it. */
  readonly size: number;
  readonly root: string;
  /**
   * Whether `members` is all of the tree (the manager was asked), or what this node knows of it.
   */
  readonly isWhole: boolean;
  readonly members: readonly TreeMemberReport[];
  /** Where this node's blocks of the image came from: `memory`, `disk`, `parent`, `registry`. */
  readonly blocksBySource: Readonly<Record<string, SourceReport>>;
}

export interface TreesReport {
  readonly enabled: boolean;
  readonly self: string;
  readonly trees: readonly TreeReport[];
}

/** Where a client of this machine reads images from the cluster's caches. */
export interface MirrorReport {
  /** Plain HTTP on loopback, for containerd's certs.d: `http://127.0.0.1:PORT`. */
  readonly loopbackUrl: string;
  /** Mutual TLS, for clients elsewhere with a certificate of `faasnet peers cert`. */
  readonly url: string;
}

/** A client's certificate of the cluster's authority, in PEM. Whoever has it reads every image. */
export interface CertificateReport {
  readonly ca: string;
  readonly certificate: string;
  readonly privateKey: string;
  readonly url: string;
}
