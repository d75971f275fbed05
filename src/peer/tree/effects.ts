/** What a tree agent is told, what it asks its driver to do, and what it tells the layers above. */
import type { Destination } from "../membership/index.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { MoveReason } from "./judgement.ts";
import type { ComplaintReason, Epoch, RefusalReason } from "./messages.ts";
import type { TreeMember } from "./ranking.ts";

/** Where this member stands in one image's tree. */
export interface Position {
  /** The manifest's digest. */
  readonly image: string;
  readonly epoch: Epoch;
  readonly zone: string;
  /** In the array of its zone: the parent of slot i is (i - 1) >> 1. */
  readonly slot: number;
  /** Members above it: 0 for the root. */
  readonly depth: number;
  /** Whom to ask for blocks and maps. Undefined: this member is the root. */
  readonly parent?: PeerRef;
  readonly grandparent?: PeerRef;
  readonly root: PeerRef;
  /**
   * The root alone reads the registry freely, and makes a map that nobody has. In one epoch exactly
   * one member is root; whoever was before it may not know yet.
   */
  readonly isRoot: boolean;
  readonly size: number;
  /** Members that have this one as their parent. */
  readonly children: number;
}

export type TreeInput =
  /** The time that `nextMs` named has come. */
  | { readonly kind: "tick" }
  /** One tree message; `sender` is the boot that the seal proves. */
  | {
      readonly kind: "packet";
      readonly from: Destination;
      readonly sender: string;
      readonly content: Uint8Array;
    }
  /** Everybody that membership knows, when that has changed. */
  | { readonly kind: "members"; readonly list: readonly TreeMember[] }
  /** Whom to ask while nobody is known. */
  | { readonly kind: "seeds"; readonly list: readonly Destination[] }
  /** This member was given another boot, address or port. */
  | { readonly kind: "self"; readonly self: PeerRef }
  | { readonly kind: "join"; readonly image: string }
  | { readonly kind: "leave"; readonly image: string }
  /** How many of the image's blocks this member has. */
  | { readonly kind: "held"; readonly image: string; readonly blocks: number }
  /** How fast it has sent blocks of the image to a child, while it was sending. */
  | { readonly kind: "serving"; readonly image: string; readonly bytesPerSecond: number }
  | {
      readonly kind: "complain";
      readonly image: string;
      /** Id of the member that it is about. */
      readonly about: string;
      readonly reason: ComplaintReason;
    }
  /** "May I read so many bytes from the registry?" Answered by the effect `token-answer`. */
  | { readonly kind: "token"; readonly image: string; readonly bytes: number; readonly id: number };

export type TreeEvent =
  | { readonly kind: "managing"; readonly image: string; readonly role: ManagerRole }
  | { readonly kind: "joined"; readonly image: string; readonly id: string; readonly size: number }
  | {
      readonly kind: "removed";
      readonly image: string;
      readonly id: string;
      readonly reason: RemovalReason;
      /** Members that have another parent, grandparent or root now. */
      readonly affected: number;
    }
  | {
      readonly kind: "moved";
      readonly image: string;
      readonly id: string;
      readonly reason: MoveReason;
    }
  /** Everybody feeds others in as many trees as it should; this one is the least loaded. */
  | {
      readonly kind: "interior-limit";
      readonly image: string;
      readonly id: string;
      readonly interior: number;
    }
  /** Of two trees the larger goes on. */
  | { readonly kind: "merged"; readonly image: string; readonly into: string }
  | { readonly kind: "refused"; readonly image: string; readonly reason: RefusalReason }
  /** This node's join was refused. */
  | { readonly kind: "join-refused"; readonly image: string; readonly reason: RefusalReason }
  /** A packet of a version that we do not speak, or that is malformed. */
  | { readonly kind: "bad-packet"; readonly sender: string; readonly message: string };

/** Undefined: no longer. */
export type ManagerRole = "deputy" | "gathering" | "manager" | "none";
export type RemovalReason = "left" | "dead" | "silent" | "moved-on";

export type TreeEffect =
  /** One tree message, without the byte that says that it is one. */
  | {
      readonly kind: "send";
      readonly to: Destination;
      readonly content: Uint8Array;
      /** An answer has to come: one that does not may mean that the receiver was started again. */
      readonly isAsking: boolean;
    }
  /** Undefined: this member is in the tree no more. */
  | { readonly kind: "position"; readonly image: string; readonly position: Position | undefined }
  | {
      readonly kind: "token-answer";
      readonly image: string;
      /** Of the request. */
      readonly id: number;
      readonly granted: boolean;
      /** When to ask again. */
      readonly retryAfterMs: number;
    }
  | { readonly kind: "event"; readonly event: TreeEvent };
