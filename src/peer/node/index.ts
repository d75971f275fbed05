/** A node of the cluster: membership and trees on one socket. */
export { checkNodeConfig, PEER_NODE_DEFAULTS } from "./config.ts";
export type { PeerNodeConfig } from "./config.ts";
export type { Finding, FindingKind } from "./findings.ts";
export { parseKeys, readKeyFile } from "./key-file.ts";
export type { RankedMembers } from "./member-ranking.ts";
export { hostPort } from "./member-watch.ts";
export { WorkerPeerNode } from "./peer-node.ts";
export type { PeerNode, PeerNodeStart } from "./peer-node.ts";
export type { MemberReport, MembersReport, SeedReport } from "./report.ts";
export { parseEntry, PORT_DEFAULT } from "./seeds.ts";
export { noStreams } from "./streams.ts";
export type { Streams } from "./streams.ts";
export type { TreesReport } from "./tree-port.ts";
