/** The tree's state machine as the node drives it: a TreeAgent, or a test's stand-in. */
import type { Random } from "../../base/random.ts";
import { TREE_PRESETS, TreeAgent } from "../tree/index.ts";
import type {
  ManagedTreeReport,
  PeerRef,
  Position,
  TreeEffect,
  TreeInput,
  WireVersions,
} from "../tree/index.ts";

export interface TreePort {
  readonly nextMs: number;
  step(input: TreeInput, nowMs: number): readonly TreeEffect[];
  images(): readonly string[];
  position(image: string): Position | undefined;
  managed(): readonly ManagedTreeReport[];
}

export interface TreesReport {
  /** The trees that this node is in, or wants to be in. */
  readonly memberOf: readonly { readonly image: string; readonly position: Position | undefined }[];
  /** Those that it manages or stands in for. */
  readonly managed: readonly ManagedTreeReport[];
}

export interface TreePortOptions {
  readonly self: PeerRef;
  readonly random: Random;
  readonly nowMs: number;
  readonly wire: WireVersions;
}

export type MakeTree = (options: TreePortOptions) => TreePort;

export const makeTree: MakeTree = (options) =>
  new TreeAgent({ config: TREE_PRESETS.lan, ...options });
