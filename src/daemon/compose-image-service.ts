/**
 * Builds the image service: the one place where cache, registry, keeper and mounts are joined.
 * The read path in one line: keeper -> resolver(cache, registry | archive) -> keeper.
 */
import { mkdir } from "node:fs/promises";
import { release } from "node:os";
import { throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { punchHole } from "../base/native.ts";
import { ProcessLock } from "../base/process-lock.ts";
import type { Random } from "../base/random.ts";
import { Scope } from "../base/scope.ts";
import {
  BlockResolver,
  DEFAULT_BLOCK_RESOLVER_OPTIONS,
  decodeBlock,
  decodeFrame,
  RELAY_MEMORY_BYTES,
} from "../block/index.ts";
import { DiskCache, nodeCacheFiles, readBootId } from "../cache/index.ts";
import { selfTestGzipResume } from "../image/index.ts";
import { chainIds, digestHex, parseChainId } from "../oci/index.ts";
import type { DiffId } from "../oci/index.ts";
import { RegistryPool } from "../registry/index.ts";
import { KeeperClient, Rootfs, selfTest } from "../rootfs/index.ts";
import type { SelfTestVerdict } from "../rootfs/index.ts";
import { BackgroundFill } from "./background-fill.ts";
import { ChainStore } from "./chain-store.ts";
import type { Config } from "./config.ts";
import { ImageEnsurer } from "./ensure-image.ts";
import { FreeSpaceWatch } from "./free-space-watch.ts";
import { registryOptions } from "./environment.ts";
import { resolveAtPlace, StoredImageResolver } from "./image-resolver.ts";
import { ImageService } from "./image-service.ts";
import { ImageSources } from "./image-sources.ts";
import { ImageStore } from "./image-store.ts";
import { removeUnfinished } from "./json-file.ts";
import { LayerStore } from "./layer-store.ts";
import { PeerSide } from "./peers/peer-side.ts";
import { rootPaths, statePaths } from "./paths.ts";
import type { RootPaths } from "./paths.ts";

/** The keeper answers EIO a little after the image service should have, which knows the reason. */
const KEEPER_EXTRA_WAIT_MS = 5_000;
const SECOND_MS = 1000;

export interface ComposedImageService extends AsyncDisposable {
  readonly service: ImageService;
  readonly modeReason: string;
}

export interface ComposeDependencies {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Needs a keeper at STATE/keeper.sock, now or soon. */
export async function composeImageService(
  config: Config,
  deps: ComposeDependencies,
  options: { readonly signal: AbortSignal },
): Promise<ComposedImageService> {
  const scope = new Scope();
  try {
    const composed = await compose(config, deps, { ...options, scope });
    return { ...composed, [Symbol.asyncDispose]: () => scope[Symbol.asyncDispose]() };
  } catch (error) {
    await scope[Symbol.asyncDispose]();
    throw error;
  }
}

/** What the parts below need of each other while they are built, and of the service above them. */
interface Building {
  readonly config: Config;
  readonly deps: ComposeDependencies;
  readonly paths: RootPaths;
  readonly scope: Scope;
  readonly ready: Promise<ImageService>;
  /** Aborted when the service ends. */
  readonly stop: AbortSignal;
}

async function compose(
  config: Config,
  deps: ComposeDependencies,
  { signal, scope }: { readonly signal: AbortSignal; readonly scope: Scope },
): Promise<Omit<ComposedImageService, typeof Symbol.asyncDispose>> {
  const { clock, log } = deps;
  const paths = rootPaths(config.root);
  await makeFolders(paths);
  scope.use(await ProcessLock.acquire(config.root, "root"));
  await removeUnfinished(config.root, /^self-test-.*\.erofs$/);
  await removeUnfinished(config.state, /\.json\.new$/);
  const verdict = await chooseMode(config, deps, signal);
  await checkGzip(log);
  log.info("mode-chosen", { ...verdict, kernel: release() });
  let supply: (service: ImageService) => void = () => undefined;
  const ready = new Promise<ImageService>((resolve) => {
    supply = resolve;
  });
  const stop = new AbortController();
  const building: Building = { config, deps, paths, scope, ready, stop: stop.signal };
  const keeper = connectKeeper(building);
  const { peers, failure: peersFailure } = await openPeers(building, signal);
  const readPath = await openReadPath(building, keeper, peers);
  const { images, layers, cache, resolver, sources } = readPath;
  const chains = await ChainStore.open(paths, images, { stop: stop.signal });
  const resolvePlace = peers === undefined ? resolveAtPlace(sources) : peers.resolvePlace(sources);
  const resolveImage = new StoredImageResolver(images, resolvePlace, log);
  const ensurer = new ImageEnsurer(
    images,
    (request, wait) => resolveImage.resolve(request, wait),
    layers,
    log,
    {
      builders: config.maps.builders,
      merge: (wanted, wait) => chains.merge(wanted, wait),
      stop: stop.signal,
      onEnsuring: peers === undefined ? undefined : (image) => peers.images.ensuring(image),
    },
  );
  const rootfs = scope.use(
    await Rootfs.open({ stateDir: config.state, keeper, mode: verdict.mode, clock, log }),
  );
  const background = openBackground(building, { cache, resolver, layers });
  scope.use(new FreeSpaceWatch(cache, { clock, log }));
  scope.defer(() => {
    stop.abort();
  });
  const parts = { clock, log, images, layers, chains, ensurer, cache, resolver, keeper, rootfs };
  const service = new ImageService({
    ...parts,
    background,
    peers,
    peersFailure,
    fillLimitMs: config.read.limitSeconds * SECOND_MS,
    stop: stop.signal,
  });
  supply(service);
  if (peers !== undefined) servePeers(peers, readPath, rootfs);
  return { service, modeReason: verdict.reason };
}

async function openPeers(
  { config, deps, scope }: Building,
  signal: AbortSignal,
): Promise<{ readonly peers?: PeerSide; readonly failure?: string }> {
  const log = deps.log.child({ module: "peer" });
  try {
    const peers = await PeerSide.open(config, { ...deps, log, logLevel: config.logLevel, signal });
    return peers === undefined ? {} : { peers: scope.use(peers) };
  } catch (error) {
    throwIfAborted(signal);
    // Containers that read from here must not wait for a key file.
    log.error("peers-failed", { err: error });
    return { failure: errorMessage(error) };
  }
}

function servePeers(peers: PeerSide, readPath: ReadPath, rootfs: Rootfs): void {
  const { images, sources, registries, layers, resolver, cache } = readPath;
  const blocksOf = (diffId: DiffId): number => cache.get(digestHex(diffId))?.usage().blocks ?? 0;
  // Mounts that the service before this one left are in use too.
  for (const { chainId } of rootfs.chains) {
    const image = images.imageOfChain(parseChainId(`sha256:${chainId}`));
    if (image !== undefined) peers.images.use(image);
  }
  peers.serve({
    ...{ images, sources, registries, layers, resolver },
    heldBlocks: (image) => image.layers.reduce((sum, { diffId }) => sum + blocksOf(diffId), 0),
    isMounted: (image) => {
      const ids = new Set(chainIds(image.layers.map(({ diffId }) => diffId)).map(digestHex));
      return rootfs.chains.some(({ chainId }) => ids.has(chainId));
    },
  });
}

function connectKeeper({ config, deps, scope, ready }: Building): KeeperClient {
  return scope.use(
    new KeeperClient({
      socketPath: statePaths(config.state).keeperSocket,
      clock: deps.clock,
      log: deps.log.child({ module: "rootfs" }),
      readWaitMs: config.read.limitSeconds * SECOND_MS + KEEPER_EXTRA_WAIT_MS,
      onFetch: async (layerId, range, wait) => (await ready).fetch(layerId, range, wait),
      onTouched: (layerId, ranges) => {
        void ready.then((service) => {
          service.touched(layerId, ranges);
        });
      },
    }),
  );
}

interface ReadPath {
  readonly cache: DiskCache;
  readonly resolver: BlockResolver;
  readonly images: ImageStore;
  readonly sources: ImageSources;
  readonly registries: RegistryPool;
  readonly layers: LayerStore;
}

async function openReadPath(
  building: Building,
  keeper: KeeperClient,
  peers: PeerSide | undefined,
): Promise<ReadPath> {
  const { config, deps, paths, scope } = building;
  const { clock, random, log } = deps;
  const registry = registryOptions(config);
  const registries = scope.use(
    new RegistryPool(registry, { clock, random, log: log.child({ module: "registry" }) }),
  );
  const cache = scope.use(await openCache(building, keeper));
  const resolver = scope.use(
    new BlockResolver(
      { clock, random, logger: log.child({ module: "block" }), decodeBlock, decodeFrame },
      {
        readLimitMs: config.read.limitSeconds * SECOND_MS,
        memoryBytesMax: config.cache.memoryBytes,
        relayMemoryBytesMax: peers === undefined ? 0 : RELAY_MEMORY_BYTES,
        backoff: {
          ...DEFAULT_BLOCK_RESOLVER_OPTIONS.backoff,
          // A reader who comes when the registry is back must meet a try within the limit.
          maxMs: Math.min(
            DEFAULT_BLOCK_RESOLVER_OPTIONS.backoff.maxMs,
            (config.read.limitSeconds * SECOND_MS) / 8,
          ),
        },
      },
    ),
  );
  const images = await ImageStore.open(paths, log);
  const sources = new ImageSources(registries);
  const layers = scope.use(
    await LayerStore.open({ paths, cache, resolver, images, sources, registry, peers, log }),
  );
  return { cache, resolver, images, sources, registries, layers };
}

function openBackground(
  { config, deps, scope }: Building,
  parts: Pick<ReadPath, "cache" | "resolver" | "layers">,
): BackgroundFill | undefined {
  const { enabled, delaySeconds, rateBytesPerSecond } = config.background;
  if (!enabled) return undefined;
  const options = { delayMs: delaySeconds * SECOND_MS, rateBytesPerSecond };
  return scope.use(new BackgroundFill({ ...deps, ...parts }, options));
}

/** Without it gzip layers are left to containerd; mounted ones and all others work. */
async function checkGzip(log: Logger): Promise<void> {
  try {
    await selfTestGzipResume();
  } catch (error) {
    log.error("gzip-resume-failed", { err: error });
  }
}

async function makeFolders(paths: RootPaths): Promise<void> {
  for (const folder of [paths.root, paths.layers, paths.chains, paths.images, paths.cache]) {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  }
}

async function chooseMode(
  config: Config,
  { clock, log }: ComposeDependencies,
  signal: AbortSignal,
): Promise<SelfTestVerdict> {
  const { mode } = config.mount;
  const forced = mode === "auto" ? undefined : mode;
  return selfTest({ stateDir: config.state, scratchDir: config.root, forced, clock, log, signal });
}

async function openCache(
  { config, deps, paths, stop }: Building,
  keeper: KeeperClient,
): Promise<DiskCache> {
  return DiskCache.open(
    paths.cache,
    {
      clock: deps.clock,
      logger: deps.log.child({ module: "cache" }),
      files: nodeCacheFiles(punchHole),
      bootId: await readBootId(),
      drop: (layerId, ranges, { signal }) =>
        keeper.drop(layerId, ranges, { signal: AbortSignal.any([signal, stop]) }),
    },
    {
      quotaBytes: config.cache.quotaBytes,
      reserveBytes: config.cache.minFreeBytes,
      // What children are given is what the registry has.
      blobs: config.cache.keepBlobs || config.peer.enabled ? "on" : "off",
    },
  );
}
