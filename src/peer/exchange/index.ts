/**
 * The exchange: how members give each other blocks, maps, fetch orders and views, and give cached
 * images to any OCI client. `BlockServer` serves, `ExchangeClient` asks.
 */
export { ExchangeClient } from "./client.ts";
export type { ExchangeClientOptions, FetchedMap } from "./client.ts";
export { ExchangeCounters } from "./counters.ts";
export type { PeerCounterName, PeerCounters } from "./counters.ts";
export type { PeerHealth, Trouble } from "./health.ts";
export type { DocumentReply } from "./documents.ts";
export { clientCertificatePem, clientHostsToml, mirrorHostsToml } from "./hosts-toml.ts";
export type { ListenAddress } from "./http-server.ts";
export type { OrderBatch } from "./peer-streams.ts";
export type { PositionLookup, TreeEpoch, TreePosition } from "./position.ts";
export type {
  BlockProvider,
  DocumentName,
  DocumentProvider,
  DocumentQuestion,
  DocumentReach,
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
  ViewProvider,
  WantedBlock,
} from "./providers.ts";
export { BlockServer } from "./server.ts";
export type { BlockServerOptions } from "./server.ts";
export { TreeSource } from "./tree-source.ts";
export type { TreeSourceLayer } from "./tree-source.ts";
export { WaitBook } from "./wait-book.ts";
