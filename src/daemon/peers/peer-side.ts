/**
 * The node among its peers, as the image service has it: membership and trees in a worker thread,
 * the block server and client on this one, and what joins them to the read path.
 */
import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { Scope } from "../../base/scope.ts";
import { hasSequential } from "../../block/index.ts";
import type { BlockResolver } from "../../block/index.ts";
import { hostPort } from "../../peer/index.ts";
import type { ExchangeCounters, Identity, PeerNode } from "../../peer/index.ts";
import type { Config } from "../config.ts";
import type { ImageSources } from "../image-sources.ts";
import type { ResolvePlace } from "../image-resolver.ts";
import type { ImageRecord, ImageStore } from "../image-store.ts";
import type { LayerPeers, LayerStore } from "../layer-store.ts";
import type { RegistryPool } from "../../registry/index.ts";
import type { DocumentCounts } from "./document-owner.ts";
import { GuardedSource, TreesSource } from "./layer-sources.ts";
import type { LayerSourceParts } from "./layer-sources.ts";
import { MapExchange } from "./map-exchange.ts";
import { OrderFollower } from "./order-follower.ts";
import { openPeerParts } from "./peer-parts.ts";
import type { PeerParts, PeerSideParts } from "./peer-parts.ts";
import { TreesAbove } from "./trees-above.ts";
import { resolveShared } from "./shared-images.ts";
import type { TreeImages } from "./tree-images.ts";

/** Between two reports of what is held. */
const HELD_MS = 1000;

/** What is built after the peers, with which they serve. */
export interface ServedParts {
  readonly images: ImageStore;
  readonly sources: ImageSources;
  readonly registries: RegistryPool;
  readonly layers: LayerStore;
  readonly resolver: BlockResolver;
  readonly heldBlocks: (image: ImageRecord) => number;
  readonly isMounted: (image: ImageRecord) => boolean;
}

export class PeerSide implements LayerPeers, AsyncDisposable {
  readonly #parts: PeerParts;
  readonly #scope: Scope;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #maps: MapExchange;
  readonly #sourceParts: LayerSourceParts;
  readonly #supply: (parts: ServedParts) => void;

  /** Undefined where peers are off. */
  static async open(config: Config, parts: PeerSideParts): Promise<PeerSide | undefined> {
    if (!config.peer.enabled) return undefined;
    const scope = new Scope();
    let supply: (served: ServedParts) => void = () => undefined;
    const served = new Promise<ServedParts>((resolve) => {
      supply = resolve;
    });
    try {
      const opened = await openPeerParts(config.peer, parts, { scope, served });
      return new PeerSide(opened, { ...parts, scope, supply });
    } catch (error) {
      await scope[Symbol.asyncDispose]();
      throw error;
    }
  }

  private constructor(
    parts: PeerParts,
    {
      scope,
      clock,
      log,
      supply,
    }: Pick<PeerSideParts, "clock" | "log"> & {
      readonly scope: Scope;
      readonly supply: (parts: ServedParts) => void;
    },
  ) {
    this.#parts = parts;
    this.#scope = scope;
    this.#clock = clock;
    this.#log = log;
    this.#supply = supply;
    const { node, client, images, tokens } = parts;
    this.#maps = new MapExchange({ node, client, clock, log });
    this.#sourceParts = {
      ...{ images, tokens, clock },
      position: (image) => node.position(image),
    };
  }

  get node(): PeerNode {
    return this.#parts.node;
  }

  get images(): TreeImages {
    return this.#parts.images;
  }

  get identity(): Identity {
    return this.#parts.identity;
  }

  get counters(): ExchangeCounters {
    return this.#parts.counters;
  }

  /** Connections to the block server that did not get past the handshake. */
  get refusedConnections(): number {
    return this.#parts.server.counts.strangers;
  }

  /** Where clients with a certificate read images. */
  get url(): string {
    const { node, exchange } = this.#parts;
    return `https://${hostPort({ ...node.self.address, port: exchange.port })}`;
  }

  /** Where clients of this machine do; empty where `[peer] mirror` is. */
  get loopbackUrl(): string {
    const { mirror } = this.#parts;
    return mirror === undefined ? "" : `http://${hostPort(mirror)}`;
  }

  /** Manifests and configs that this node has had, by where from. */
  get documentCounts(): Readonly<DocumentCounts> {
    return this.#parts.documents.counts;
  }

  /** Images by documents that the cluster shares. */
  resolvePlace(sources: ImageSources): ResolvePlace {
    return resolveShared(this.#parts.documents, sources);
  }

  around: LayerPeers["around"] = (layer) => {
    const parts = this.#sourceParts;
    const { client } = this.#parts;
    const trees = new TreesSource(layer.id, parts, (image) => client.source(image, layer));
    const guarded = { id: layer.id, isRelayed: !hasSequential(layer.table) };
    return (own) => {
      const registries = own.map((source) => new GuardedSource(source, guarded, parts));
      // Where nobody is above us a slow registry is not left for others.
      return trees.readiness() === "skip" ? registries : [trees, ...registries];
    };
  };

  fetchMap: LayerPeers["fetchMap"] = async (image, layer, options) =>
    this.#maps.fetch(image, layer, options);

  /** The read path is there: others' requests are answered from now on. */
  serve(served: ServedParts): void {
    const { resolver, heldBlocks, isMounted } = served;
    const { node, client, images, orders, tokens } = this.#parts;
    const [clock, log, scope] = [this.#clock, this.#log, this.#scope];
    tokens.onGranted(() => {
      resolver.wake();
    });
    images.watchMounts(isMounted);
    const stopOrders = resolver.onOrder((layerId, block) => {
      orders.add(layerId, block);
    });
    scope.defer(stopOrders);
    const follower = new OrderFollower({ node, client, resolver, clock, log });
    scope.defer(() => {
      follower[Symbol.dispose]();
    });
    const above = new TreesAbove();
    const stopPositions = node.onPosition((image, position) => {
      if (!above.note(image, position)) return;
      const { root, parent, size } = position ?? {};
      log.debug("tree-position", { image, root: root?.id, parent: parent?.id, size });
      resolver.wake("parent");
    });
    scope.defer(stopPositions);
    this.#reportHeld(heldBlocks);
    this.#supply(served);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }

  #reportHeld(heldBlocks: (image: ImageRecord) => number): void {
    const { node, images } = this.#parts;
    let cancel = (): void => undefined;
    const report = (): void => {
      for (const image of images.images()) node.held(image.manifestDigest, heldBlocks(image));
      cancel = this.#clock.timer(HELD_MS, report);
    };
    report();
    this.#scope.defer(() => {
      cancel();
    });
  }
}
