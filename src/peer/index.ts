/** The door of `peer`: membership and function trees (a node), and the exchange of blocks. */
export * from "./exchange/index.ts";
export * from "./node/index.ts";
export { MEMBERSHIP_PRESETS } from "./membership/index.ts";
export type { MembershipConfig, MembershipPreset } from "./membership/index.ts";
export type { PeerRef } from "./peer-ref.ts";
export { Identity } from "./transport/identity.ts";
export { KeyRing } from "./transport/key-ring.ts";
export type { ComplaintReason, Epoch, ManagedTreeReport, Position } from "./tree/index.ts";
