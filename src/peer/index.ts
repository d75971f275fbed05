/** The door of `peer`: membership and function trees (a node), and the exchange of blocks. */
export { BlockServer, ExchangeClient, ExchangeCounters, WaitBook } from "./exchange/index.ts";
export type {
  BlockProvider,
  DocumentName,
  DocumentProvider,
  DocumentQuestion,
  DocumentReply,
  FetchedMap,
  ListenAddress,
  MapProvider,
  OrderEntry,
  OrderProvider,
  ProvidedBlob,
  ProvidedBlock,
  ProvideDocumentOptions,
  ProvidedManifest,
  ProvideOptions,
  Repository,
  SharedDocument,
  SharedDocumentProvider,
  TreePosition,
  TreeSource,
  Trouble,
  WantedBlock,
} from "./exchange/index.ts";
export { MEMBERSHIP_PRESETS } from "./membership/index.ts";
export { hostPort, PEER_NODE_DEFAULTS, readKeyFile, WorkerPeerNode } from "./node/index.ts";
export type { FindingKind, MembersReport, PeerNode, RankedMembers } from "./node/index.ts";
export type { PeerRef } from "./peer-ref.ts";
export { Identity } from "./transport/identity.ts";
export type { KeyRing } from "./transport/key-ring.ts";
export type { ManagedTreeReport, Position } from "./tree/index.ts";
