/**
 * Membership: who is in the cluster. `Swim` is the state machine; whoever uses it gives it time,
 * packets and views, and does what it returns.
 */
export { WIRE_VERSION, WIRE_VERSIONS } from "../wire-versions.ts";
export type { WireVersions } from "../wire-versions.ts";
export { decodePacket, decodeView, encodePacket, encodeView } from "./codec.ts";
export { MEMBERSHIP_PRESETS, checkConfig } from "./config.ts";
export type { MembershipConfig, MembershipPreset } from "./config.ts";
export type { Destination, Effect, MembershipEvent } from "./effects.ts";
export { isPresent } from "./member.ts";
export type { Address, Member, MemberInfo, MemberState } from "./member.ts";
export type { Message, ViewRecord } from "./messages.ts";
export { Swim } from "./swim.ts";
export type { SwimInput, SwimOptions } from "./swim.ts";
