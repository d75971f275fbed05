/** Builds what a node has for its peers: certificates, block client and server, the node itself. */
import { isIP } from "node:net";
import { hostname } from "node:os";
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import type { Logger, LogLevel } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { Scope } from "../../base/scope.ts";
import {
  BlockServer,
  ExchangeClient,
  ExchangeCounters,
  Identity,
  MEMBERSHIP_PRESETS,
  PEER_NODE_DEFAULTS,
  readKeyFile,
  WaitBook,
  WorkerPeerNode,
} from "../../peer/index.ts";
import type { KeyRing, ListenAddress, PeerNode, TreePosition, Trouble } from "../../peer/index.ts";
import { isLocalOnly, splitHostPort } from "../../registry/index.ts";
import type { Config } from "../config.ts";
import type { ServedParts } from "./peer-side.ts";
import { CachedBlockProvider, StoredMapProvider } from "./block-provider.ts";
import { DocumentCache } from "./document-cache.ts";
import { DocumentOwner } from "./document-owner.ts";
import { registryDocument, storedDocument } from "./document-places.ts";
import { CachedDocuments } from "./document-provider.ts";
import { ImageOrders } from "./image-orders.ts";
import { RegistryTokens } from "./registry-tokens.ts";
import { TreeImages } from "./tree-images.ts";

/** Between two looks at the key file. */
const KEY_FILE_MS = 5000;
const PORT_MAX = 65_535;
const SECOND_MS = 1000;

export interface PeerSideParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly logLevel: LogLevel;
  readonly signal: AbortSignal;
}

export interface PeerParts {
  readonly node: PeerNode;
  readonly client: ExchangeClient;
  readonly server: BlockServer;
  readonly identity: Identity;
  readonly counters: ExchangeCounters;
  readonly tokens: RegistryTokens;
  readonly images: TreeImages;
  readonly orders: ImageOrders;
  readonly documents: DocumentOwner;
  /** Where members and clients with a certificate read. */
  readonly exchange: ListenAddress;
  /** Where programs of this machine do. */
  readonly mirror: ListenAddress | undefined;
}

interface Building {
  readonly peer: Config["peer"];
  readonly id: string;
  readonly bind: ListenAddress;
  readonly advertise: ListenAddress | undefined;
  readonly parts: PeerSideParts;
  readonly scope: Scope;
  /** The node comes last: its members are told the server's port. */
  readonly holder: { node?: PeerNode };
  readonly served: Promise<ServedParts>;
}

export async function openPeerParts(
  peer: Config["peer"],
  parts: PeerSideParts,
  { scope, served }: { readonly scope: Scope; readonly served: Promise<ServedParts> },
): Promise<PeerParts> {
  const id = peer.name === "" ? hostname() : peer.name;
  const advertise = peer.advertise === "" ? undefined : addressOf(peer.advertise);
  const bind = addressOf(peer.bind);
  const building: Building = { peer, id, bind, advertise, parts, scope, holder: {}, served };
  const identity = await openIdentity(building);
  const shared = {
    selfId: id,
    identity,
    positions: (image: string): TreePosition | undefined => building.holder.node?.position(image),
    waits: new WaitBook(),
    counters: new ExchangeCounters(),
    clock: parts.clock,
    logger: parts.log,
  };
  const tokens = openTokens(building);
  const client = new ExchangeClient({
    ...shared,
    mayLeave: (image) => tokens.readiness(image) === "ready",
    onRootLost: (image) => {
      tokens.rootLost(image);
    },
    onTrouble: (image, about, trouble) => {
      const reason = complaintOf(trouble);
      if (reason !== undefined) building.holder.node?.complain(image, about, reason);
    },
  });
  scope.defer(() => {
    client[Symbol.dispose]();
  });
  const images = openImages(building);
  const orders = new ImageOrders(images);
  const documents = openDocuments(building, client);
  const server = openServer(building, shared, { images, orders, documents });
  const port = peer.exchangePort === 0 ? bind.port : peer.exchangePort;
  const exchange = await server.listen({ host: bind.host, port });
  const mirror = peer.mirror === "" ? undefined : await server.listenClear(addressOf(peer.mirror));
  const node = await startNode(building, { client, exchangePort: exchange.port });
  const { counters } = shared;
  const own = { images, orders, documents, tokens };
  return { node, client, server, identity, counters, ...own, exchange, mirror };
}

function openTokens({ holder, parts, scope }: Building): RegistryTokens {
  const tokens = new RegistryTokens({
    ask: async (image, bytes, options) =>
      (await holder.node?.requestToken(image, bytes, options)) ?? false,
    clock: parts.clock,
  });
  scope.defer(() => {
    tokens[Symbol.dispose]();
  });
  return tokens;
}

function openDocuments(
  { peer, id, parts, holder, served }: Building,
  client: ExchangeClient,
): DocumentOwner {
  const { clock, log } = parts;
  return new DocumentOwner({
    selfId: id,
    hasSeeds: peer.seeds.length > 0,
    rank: async (key, othersMax) => {
      if (holder.node === undefined) throw new DaemonError("unavailable", "the node is starting");
      return holder.node.rank(key, othersMax);
    },
    ask: (member, question, options) => client.fetchDocument(member, question, options),
    stored: async (wanted) => storedDocument((await served).images.images, wanted),
    fetch: async (wanted, options) => registryDocument((await served).registries, wanted, options),
    isShared: (registry) => !isLocalOnly(splitHostPort(registry).host),
    tagTtlMs: peer.tagTtlSeconds * SECOND_MS,
    cache: new DocumentCache(clock),
    ...{ clock, log },
  });
}

async function openIdentity({
  peer,
  id,
  bind,
  advertise,
  parts,
  scope,
}: Building): Promise<Identity> {
  const { log, random } = parts;
  const { ring, isExposed } = await readKeyFile(peer.keyFile);
  if (isExposed) log.warn("peer-key-file", { path: peer.keyFile });
  const hosts = [advertise?.host ?? bind.host].filter((host) => !isAnyHost(host));
  const identity = Identity.fromRing(ring, { memberId: id, hosts, random });
  scope.defer(followKeys(identity, ring, { ...parts, path: peer.keyFile }));
  return identity;
}

function openImages({ holder, parts, scope }: Building): TreeImages {
  const images = new TreeImages(
    {
      join: (image) => holder.node?.join(image),
      leave: (image) => holder.node?.leave(image),
    },
    parts.clock,
  );
  scope.defer(() => {
    images[Symbol.dispose]();
  });
  return images;
}

/** Requests wait for the read path, which is built after it. */
function openServer(
  { peer, scope, holder, served }: Building,
  shared: Pick<
    ConstructorParameters<typeof BlockServer>[0],
    "clock" | "counters" | "identity" | "logger" | "positions" | "selfId" | "waits"
  >,
  { images, orders, documents }: Pick<PeerParts, "documents" | "images" | "orders">,
): BlockServer {
  const server = new BlockServer({
    ...shared,
    blocks: {
      open: async (want, options) => {
        const { layers, resolver } = await served;
        return new CachedBlockProvider(layers, resolver).open(want, options);
      },
    },
    maps: {
      open: async (diffId, options) => {
        const { layers } = await served;
        return new StoredMapProvider(layers, images).open(diffId, options);
      },
    },
    orders,
    documents: {
      manifest: async (repository, reference, options) =>
        new CachedDocuments({ ...(await served), documents }).manifest(
          repository,
          reference,
          options,
        ),
      blob: async (repository, digest, options) =>
        new CachedDocuments({ ...(await served), documents }).blob(repository, digest, options),
    },
    shared: documents,
    views: async (records) => {
      if (holder.node === undefined) throw new DaemonError("unavailable", "the node is starting");
      return holder.node.onPushPull(records);
    },
    uploadBytesPerSecond: peer.uploadBytesPerSecond === 0 ? undefined : peer.uploadBytesPerSecond,
  });
  return scope.use(server);
}

async function startNode(
  { peer, id, bind, advertise, parts, scope, holder }: Building,
  { client, exchangePort }: { readonly client: ExchangeClient; readonly exchangePort: number },
): Promise<PeerNode> {
  const { log, logLevel, signal } = parts;
  const config = {
    ...PEER_NODE_DEFAULTS,
    ...{ id, bind, exchangePort, zone: peer.zone, seeds: peer.seeds },
    advertise: advertise ?? {},
    keys: { file: peer.keyFile },
    membership: MEMBERSHIP_PRESETS[peer.preset],
  };
  const node = await WorkerPeerNode.start({ config, streams: client, log, logLevel, signal });
  holder.node = scope.use(node);
  return node;
}

/** Certificates follow the key file, which the node's thread reads for its packets. */
function followKeys(
  identity: Identity,
  first: KeyRing,
  { path, clock, log }: Pick<PeerSideParts, "clock" | "log"> & { readonly path: string },
): () => void {
  const textOf = (ring: KeyRing): string =>
    ring.keys.map(({ secret }) => Buffer.from(secret).toString("hex")).join();
  let known = textOf(first);
  let isOver = false;
  let cancel = (): void => undefined;
  const read = async (): Promise<void> => {
    try {
      const { ring } = await readKeyFile(path);
      if (textOf(ring) !== known) identity.rotate(ring);
      known = textOf(ring);
    } catch (error) {
      log.debug("peer-key-file-unread", { err: error }); // the node's thread tells people
    }
    if (!isOver) arm();
  };
  const arm = (): void => {
    cancel = clock.timer(KEY_FILE_MS, () => void read());
  };
  arm();
  return () => {
    isOver = true;
    cancel();
  };
}

/** `host:port` with an address, IPv6 in brackets; port 0 is any. */
function addressOf(text: string): ListenAddress {
  const match = /^(?:\[([\da-fA-F:.]+)\]|([\d.]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = Number(match?.[3]);
  if (isIP(host) === 0 || !(port <= PORT_MAX)) {
    throw new DaemonError("invalid-argument", `[peer] "${text}" is not an address and a port`);
  }
  return { host, port };
}

function isAnyHost(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

/** What the tree's manager is to hear of a peer's failure. */
function complaintOf(trouble: Trouble): "silent" | "wrong-bytes" | undefined {
  if (trouble === "bad-block") return "wrong-bytes";
  return trouble === "refused" ? undefined : "silent";
}
