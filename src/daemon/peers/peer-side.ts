/**
 * The node among its peers, as the image service has it: membership and trees in a worker thread,
 * the block server and client on this one, and what joins them to the read path.
 */
import { isIP } from "node:net";
import { hostname } from "node:os";
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import type { Logger, LogLevel } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Scope } from "../../base/scope.ts";
import type { BlockResolver, BlockSource, BlockTable } from "../../block/index.ts";
import type { Digest } from "../../oci/index.ts";
import {
  BlockServer,
  ExchangeClient,
  ExchangeCounters,
  hostPort,
  Identity,
  MEMBERSHIP_PRESETS,
  PEER_NODE_DEFAULTS,
  readKeyFile,
  WaitBook,
  WorkerPeerNode,
} from "../../peer/index.ts";
import type { ListenAddress, PeerNode, Trouble } from "../../peer/index.ts";
import type { Config } from "../config.ts";
import type { ImageSources } from "../image-sources.ts";
import type { ImageRecord, ImageStore } from "../image-store.ts";
import type { LayerPeers, LayerStore } from "../layer-store.ts";
import { CachedBlockProvider, StoredMapProvider } from "./block-provider.ts";
import { CachedDocuments } from "./document-provider.ts";
import { ImageOrders } from "./image-orders.ts";
import { GuardedSource, TreesSource } from "./layer-sources.ts";
import type { LayerSourceParts } from "./layer-sources.ts";
import { MapExchange } from "./map-exchange.ts";
import { OrderFollower } from "./order-follower.ts";
import { RegistryTokens } from "./registry-tokens.ts";
import { TreeImages } from "./tree-images.ts";

/** Between two reports of what is held. */
const HELD_MS = 1000;
const PORT_MAX = 65_535;

export interface PeerSideParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly logLevel: LogLevel;
  readonly signal: AbortSignal;
}

/** What is built after the peers, with which they serve. */
export interface ServedParts {
  readonly images: ImageStore;
  readonly sources: ImageSources;
  readonly layers: LayerStore;
  readonly resolver: BlockResolver;
  readonly heldBlocks: (image: ImageRecord) => number;
  readonly isMounted: (image: ImageRecord) => boolean;
}

export class PeerSide implements LayerPeers, AsyncDisposable {
  readonly node: PeerNode;
  readonly counters: ExchangeCounters;
  readonly images: TreeImages;
  readonly identity: Identity;
  readonly exchange: ListenAddress;
  readonly mirror: ListenAddress | undefined;
  readonly client: ExchangeClient;
  readonly #scope: Scope;
  readonly #clock: Clock;
  readonly #maps: MapExchange;
  readonly #sourceParts: LayerSourceParts;
  readonly #served: { readonly supply: (parts: ServedParts) => void };
  readonly #log: Logger;
  #wake: () => void = () => undefined;

  /** Undefined where peers are off. */
  static async open(config: Config, parts: PeerSideParts): Promise<PeerSide | undefined> {
    if (!config.peer.enabled) return undefined;
    const scope = new Scope();
    try {
      return await PeerSide.#open(config, parts, scope);
    } catch (error) {
      await scope[Symbol.asyncDispose]();
      throw error;
    }
  }

  static async #open(config: Config, parts: PeerSideParts, scope: Scope): Promise<PeerSide> {
    const { clock, random, log, signal, logLevel } = parts;
    const { peer } = config;
    const id = peer.name === "" ? hostname() : peer.name;
    const { ring } = await readKeyFile(peer.keyFile);
    const bind = addressOf(peer.bind);
    const advertise = peer.advertise === "" ? undefined : addressOf(peer.advertise);
    const hosts = [advertise?.host ?? bind.host].filter((host) => !isAnyHost(host));
    const identity = Identity.fromRing(ring, { memberId: id, hosts, random });
    const waits = new WaitBook();
    const counters = new ExchangeCounters();
    // The server is there before its node, whose members are told its port.
    const holder: { node?: PeerNode; images?: TreeImages } = {};
    const position: LayerSourceParts["position"] = (image) => holder.node?.position(image);
    let supply: (served: ServedParts) => void = () => undefined;
    const served = new Promise<ServedParts>((resolve) => {
      supply = resolve;
    });
    const shared = { selfId: id, identity, positions: position, waits, counters, clock };
    const client = new ExchangeClient({
      ...shared,
      logger: log,
      onTrouble: (image, about, trouble) => {
        const reason = complaintOf(trouble);
        if (reason !== undefined) holder.node?.complain(image, about, reason);
      },
    });
    scope.defer(() => {
      client[Symbol.dispose]();
    });
    const images = new TreeImages(
      {
        join: (image) => holder.node?.join(image),
        leave: (image) => holder.node?.leave(image),
      },
      clock,
    );
    scope.defer(() => {
      images[Symbol.dispose]();
    });
    const orders = new ImageOrders(images);
    const server = new BlockServer({
      ...shared,
      logger: log,
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
        manifest: async (repository, reference) =>
          new CachedDocuments(await served).manifest(repository, reference),
        blob: async (repository, digest) =>
          new CachedDocuments(await served).blob(repository, digest),
      },
      views: async (records) => {
        if (holder.node === undefined) return new Uint8Array();
        return holder.node.onPushPull(records);
      },
      uploadBytesPerSecond: peer.uploadBytesPerSecond === 0 ? undefined : peer.uploadBytesPerSecond,
    });
    scope.use(server);
    const exchangePort = peer.exchangePort === 0 ? bind.port : peer.exchangePort;
    const exchange = await server.listen({ host: bind.host, port: exchangePort });
    const mirror =
      peer.mirror === "" ? undefined : await server.listenClear(addressOf(peer.mirror));
    const node = scope.use(
      await WorkerPeerNode.start({
        config: {
          ...PEER_NODE_DEFAULTS,
          id,
          zone: peer.zone,
          bind,
          advertise: advertise ?? {},
          exchangePort: exchange.port,
          seeds: peer.seeds,
          keys: { file: peer.keyFile },
          membership: MEMBERSHIP_PRESETS[peer.preset],
        },
        streams: client,
        log,
        logLevel,
        signal,
      }),
    );
    holder.node = node;
    const side = new PeerSide(
      { node, counters, images, identity, exchange, mirror, client },
      {
        ...{ scope, clock, log, supply, position },
      },
    );
    void served.then((ready) => {
      side.#serve(ready, orders);
    });
    return side;
  }

  private constructor(
    open: Pick<
      PeerSide,
      "client" | "counters" | "exchange" | "identity" | "images" | "mirror" | "node"
    >,
    rest: {
      readonly scope: Scope;
      readonly clock: Clock;
      readonly log: Logger;
      readonly supply: (parts: ServedParts) => void;
      readonly position: LayerSourceParts["position"];
    },
  ) {
    this.node = open.node;
    this.counters = open.counters;
    this.images = open.images;
    this.identity = open.identity;
    this.exchange = open.exchange;
    this.mirror = open.mirror;
    this.client = open.client;
    const { clock, log, scope, position } = rest;
    this.#scope = scope;
    this.#clock = clock;
    this.#log = log;
    this.#served = rest;
    this.#maps = new MapExchange({ node: open.node, client: open.client, clock, log });
    const tokens = new RegistryTokens({
      ask: (image, bytes, options) => open.node.requestToken(image, bytes, options),
      clock,
      onGranted: () => {
        this.#wake();
      },
    });
    scope.defer(() => {
      tokens[Symbol.dispose]();
    });
    this.#sourceParts = { images: open.images, position, tokens, clock };
  }

  /** Where clients with a certificate read images. */
  get url(): string {
    return `https://${hostPort({ ...this.node.self.address, port: this.exchange.port })}`;
  }

  /** Where clients of this machine do; empty where `[peer] mirror` is. */
  get loopbackUrl(): string {
    return this.mirror === undefined ? "" : `http://${hostPort(this.mirror)}`;
  }

  /** The read path is there: others' requests are answered from now on. */
  serve(parts: ServedParts): void {
    this.#served.supply(parts);
  }

  sourcesOf(
    layer: { readonly id: string; readonly blobDigest: Digest; readonly table: BlockTable },
    own: readonly BlockSource[],
  ): readonly BlockSource[] {
    const parts = this.#sourceParts;
    const trees = new TreesSource(layer.id, parts, (image) => this.client.source(image, layer));
    return [trees, ...own.map((source) => new GuardedSource(source, layer.id, parts))];
  }

  fetchMap: LayerPeers["fetchMap"] = async (image, layer, options) =>
    this.#maps.fetch(image, layer, options);

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  #serve({ resolver, heldBlocks, isMounted }: ServedParts, orders: ImageOrders): void {
    const { node, client, images } = this;
    const [clock, log] = [this.#clock, this.#log];
    this.#wake = () => {
      resolver.wake();
    };
    images.watchMounts(isMounted);
    this.#scope.defer(
      resolver.onOrder((layerId, block) => {
        orders.add(layerId, block);
      }),
    );
    const follower = new OrderFollower({ node, client, resolver, clock, log });
    this.#scope.defer(() => {
      follower[Symbol.dispose]();
    });
    this.#scope.defer(
      node.onPosition((image, position) => {
        log.debug("tree-position", {
          image,
          root: position?.root.id,
          parent: position?.parent?.id,
          size: position?.size,
        });
        resolver.wake("parent");
      }),
    );
    let cancel = (): void => undefined;
    const report = (): void => {
      for (const image of images.images()) node.held(image.manifestDigest, heldBlocks(image));
      cancel = clock.timer(HELD_MS, report);
    };
    report();
    this.#scope.defer(() => {
      cancel();
    });
  }
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
