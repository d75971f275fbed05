/**
 * Function trees: who fetches which image from whom. `TreeAgent` is the state machine; whoever uses
 * it gives it time, packets and the members that are known, and does what it returns.
 */
export type { Address, Destination } from "../membership/index.ts";
export type { PeerRef } from "../peer-ref.ts";
export {
  decodeTreeMessage,
  encodeTreeMessage,
  TREE_WIRE_OLDEST,
  TREE_WIRE_VERSION,
} from "./codec.ts";
export type { WireVersions } from "./codec.ts";
export { checkTreeConfig, TREE_PRESETS } from "./config.ts";
export type { TreeConfig } from "./config.ts";
export type { Position, TreeEffect, TreeEvent, TreeInput } from "./effects.ts";
export { TREE_DEPTH_MAX } from "./limits.ts";
export { compareEpochs } from "./messages.ts";
export type { ComplaintReason, Epoch, TreeMessage } from "./messages.ts";
export type { TreeMember } from "./ranking.ts";
export type { ManagedTreeReport, TreeMemberReport } from "./report.ts";
export { TreeAgent } from "./tree-agent.ts";
export type { TreeAgentOptions } from "./tree-agent.ts";
