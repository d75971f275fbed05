/**
 * Mounts chains of layers. A layer's data device is one FUSE mount of the keeper, shared by all
 * chains that hold the layer (its page cache is then shared too); a chain is one mount above.
 */
import { mkdir, realpath, rmdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorMessage, systemErrorName, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import type { MountInfo } from "../base/mountinfo.ts";
import { nativeErrno, unmount } from "../base/native.ts";
import type { ByteRange } from "../base/range-set.ts";
import { Semaphore } from "../base/semaphore.ts";
import { mountErofsFiles, mountErofsLoops } from "./erofs-mount.ts";
import type { KeeperClient } from "./keeper-client.ts";
import { readMountState, writeMountState } from "./mount-state.ts";
import type { MountedChain, MountMode } from "./mount-state.ts";
import { clearMounts, clearStaleMounts } from "./stale-mounts.ts";
import {
  chainHealth,
  EROFS_FS_TYPE,
  isOverlayLower,
  KEEPER_FS_TYPE,
  overlayLowers,
} from "./mount-table.ts";

/** A chain longer than overlayfs' own limit of lower folders is not an image. */
export const CHAIN_LAYERS_MAX = 512;
/** Mounts and unmounts under way at once. */
const OPERATIONS_PARALLEL = 1;
const OPERATIONS_WAITING_MAX = 4096;
/** The kernel lets go of a data device a little after the mount that used it. */
const BUSY_TRIES = 5;
const BUSY_WAIT_MS = 20;
/** How often it is tried again to unmount what was in use when it was to go. */
export const UNWANTED_RETRY_MS = 5_000;

type Wait = Readonly<{ signal: AbortSignal }>;

export interface ChainLayer {
  /** diff ID, hex. */
  readonly layerId: string;
  readonly tarBytes: number;
  readonly decodedPath: string;
  /** What is in the decoded file and verified now: asked whenever the keeper must be told. */
  readonly present: () => Iterable<ByteRange>;
}

export interface ChainMount {
  /** Hex. */
  readonly chainId: string;
  /** Merged EROFS metadata; its device ids are positions in `layers`, from 1. */
  readonly metadataPath: string;
  /** Bottom first. */
  readonly layers: readonly ChainLayer[];
  /** Mount here instead of in the state folder. */
  readonly target?: string | undefined;
}

export interface RootfsOptions {
  /** Short: it is part of every device's path. */
  readonly stateDir: string;
  readonly keeper: KeeperClient;
  readonly mode: MountMode;
  readonly clock: Clock;
  readonly log: Logger;
  readonly context?: string | undefined;
}

export interface MountedPath {
  readonly path: string;
  readonly mode: MountMode;
}

/** One place of a chain: the daemon's own, or the target that a user named. */
function keyOf(chainId: string, target: string | undefined): string {
  return `${chainId} ${target ?? ""}`;
}

export class Rootfs implements AsyncDisposable {
  readonly #options: RootfsOptions;
  readonly #statePath: string;
  readonly #turns = new Semaphore(OPERATIONS_PARALLEL, { queueMax: OPERATIONS_WAITING_MAX });
  readonly #chains = new Map<string, MountedChain>();
  #layerNumbers = new Map<string, number>();
  /** As last given: what a remount after the keeper's death needs. */
  readonly #sources = new Map<string, ChainLayer>();
  /** Chains that were released while somebody used them. */
  readonly #unwanted = new Set<string>();
  #stopListening: () => void = () => undefined;
  readonly #life = new AbortController();
  #cancelRetry: (() => void) | undefined;

  private constructor(options: RootfsOptions) {
    this.#options = options;
    this.#statePath = join(options.stateDir, "mounts.json");
  }

  static async open(options: RootfsOptions): Promise<Rootfs> {
    await mkdir(options.stateDir, { recursive: true, mode: 0o700 });
    // The kernel's mount table names mountpoints without symbolic links.
    const rootfs = new Rootfs({ ...options, stateDir: await realpath(options.stateDir) });
    await rootfs.#load();
    rootfs.#stopListening = options.keeper.onConnected((isOther) => rootfs.#tidy(isOther));
    return rootfs;
  }

  get mode(): MountMode {
    return this.#options.mode;
  }

  /** Chains mounted by this process or one before it, alive or not. */
  get chains(): readonly MountedChain[] {
    return [...this.#chains.values()];
  }

  async #load(): Promise<void> {
    const state = await readMountState(this.#statePath);
    this.#layerNumbers = new Map(state.layers);
    for (const chain of state.chains) {
      const isOwn = chain.path.startsWith(`${this.#options.stateDir}/c/`);
      this.#chains.set(keyOf(chain.chainId, isOwn ? undefined : chain.path), chain);
    }
  }

  /**
   * Mounts the chain, or finds it mounted (by an earlier process too). A mount whose keeper died is
   * replaced: containers that run on the old one keep what they have cached, new ones work.
   */
  async mountChain(chain: ChainMount, wait: Wait): Promise<MountedPath> {
    if (chain.layers.length === 0 || chain.layers.length > CHAIN_LAYERS_MAX) {
      throw new DaemonError("invalid-argument", `a chain of ${chain.layers.length} layers`);
    }
    const target = chain.target === undefined ? undefined : await prepareTarget(chain.target);
    return this.#turns.run(wait, () => this.#mountChain({ ...chain, target }, wait));
  }

  async #mountChain(chain: ChainMount, wait: Wait): Promise<MountedPath> {
    const { keeper, log } = this.#options;
    const key = keyOf(chain.chainId, chain.target);
    await keeper.connected(wait);
    this.#adoptNumbers();
    this.#unwanted.delete(key);
    const known = this.#chains.get(key);
    if (known !== undefined) {
      const health = await this.#health(known);
      if (health === "alive") {
        await this.#serveLayers(chain.layers, known.mode, wait);
        return { path: known.path, mode: known.mode };
      }
      log.info("chain-mount-replaced", { chainId: chain.chainId, path: known.path, health });
      this.#chains.delete(key);
    }
    const path = known?.path ?? chain.target ?? this.#freeChainPath();
    try {
      await clearMounts(path);
      await this.#mountAt(chain, path, wait);
    } catch (error) {
      await this.#stopUnusedLayers(wait, new Set()).catch(() => undefined);
      throw withContext(error, `cannot mount chain ${chain.chainId} on ${path}`);
    }
    log.info("chain-mounted", { chainId: chain.chainId, path, mode: this.#options.mode });
    return { path, mode: this.#options.mode };
  }

  async #mountAt(chain: ChainMount, path: string, wait: Wait): Promise<void> {
    const { keeper, mode, context } = this.#options;
    await mkdir(path, { recursive: true, mode: 0o755 });
    await this.#serveLayers(chain.layers, mode, wait);
    const { chainId, metadataPath } = chain;
    if (mode === "fuse") {
      const layerIds = chain.layers.map((layer) => layer.layerId);
      const tree = { treeId: chainId, mountpoint: path, metadataPath, layerIds, context };
      await keeper.serveTree(tree, wait);
    } else {
      const devicePaths = chain.layers.map((layer) => join(this.#layerPath(layer.layerId), "data"));
      const request = { metadataPath, devicePaths, target: path, context };
      await (mode === "erofs" ? mountErofsFiles(request) : mountErofsLoops(request));
    }
    const mounts = await readMountInfo();
    const deviceAt = (place: string): string => mountAt(mounts, place)?.device ?? "";
    this.#chains.set(keyOf(chainId, chain.target), {
      chainId,
      path,
      mode,
      metadataPath,
      device: deviceAt(path),
      layers: chain.layers.map(({ layerId }) => ({
        layerId,
        device: mode === "fuse" ? "" : deviceAt(this.#layerPath(layerId)),
      })),
    });
    await this.#save();
  }

  async #serveLayers(layers: readonly ChainLayer[], mode: MountMode, wait: Wait): Promise<void> {
    const unique = new Map(layers.map((layer) => [layer.layerId, layer]));
    const isNew = [...unique.keys()].some((layerId) => !this.#layerNumbers.has(layerId));
    for (const layerId of unique.keys()) this.#layerPath(layerId);
    if (isNew) await this.#save(); // before the mounts exist, so that none is ever forgotten
    const results = await Promise.allSettled(
      [...unique.values()].map(async (layer) => {
        this.#sources.set(layer.layerId, layer);
        const mountpoint = mode === "fuse" ? "" : this.#layerPath(layer.layerId);
        await this.#options.keeper.serveLayer({ ...layer, mountpoint }, wait);
      }),
    );
    const failed = results.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  /** Where a layer's data device is mounted: numbered, because paths must stay short. */
  #layerPath(layerId: string): string {
    let number = this.#layerNumbers.get(layerId);
    if (number === undefined) {
      const used = new Set(this.#layerNumbers.values());
      number = 0;
      while (used.has(number)) number += 1;
      this.#layerNumbers.set(layerId, number);
    }
    return join(this.#options.stateDir, "l", String(number));
  }

  /** Where the keeper serves a layer already, it stays, even if our own books were lost. */
  #adoptNumbers(): void {
    const prefix = `${this.#options.stateDir}/l/`;
    for (const [layerId, mountpoint] of this.#options.keeper.servedLayers) {
      const number = Number(mountpoint.slice(prefix.length));
      if (!mountpoint.startsWith(prefix) || !Number.isSafeInteger(number)) continue;
      for (const [other, taken] of this.#layerNumbers) {
        if (taken === number && other !== layerId) this.#layerNumbers.delete(other);
      }
      this.#layerNumbers.set(layerId, number);
    }
  }

  #freeChainPath(): string {
    const used = new Set([...this.#chains.values()].map((chain) => chain.path));
    for (let number = 0; ; number += 1) {
      const path = join(this.#options.stateDir, "c", String(number));
      if (!used.has(path)) return path;
    }
  }

  async #health(chain: MountedChain): Promise<"alive" | "dead" | "absent"> {
    const { servedLayers, servedTrees } = this.#options.keeper;
    return chainHealth(chain, await readMountInfo(), servedLayers, servedTrees);
  }

  /** After a (re)connect: what was left half done, by a process that was killed or without one. */
  async #tidy(isOtherKeeper: boolean): Promise<void> {
    const wait = { signal: this.#life.signal };
    await this.#turns.run(wait, async () => {
      this.#adoptNumbers();
      if (isOtherKeeper) await this.#restore(wait);
      await this.#unmountUnwanted(wait);
      await this.#stopUnknownTrees(wait);
      await clearStaleMounts(this.#options.stateDir, (path) => this.#isKnown(path));
    });
  }

  /** After another keeper took over: every chain again, over the layers that it serves now. */
  async #restore(wait: Wait): Promise<void> {
    for (const [key, chain] of [...this.#chains]) {
      try {
        if (chain.mode === "fuse") await this.#adoptTree(key, chain);
        else await this.#remount(chain, wait);
      } catch (error) {
        this.#options.log.error("chain-not-restored", { chainId: chain.chainId, err: error });
      }
    }
  }

  #isKnown(path: string): boolean {
    const { stateDir, keeper } = this.#options;
    const isServed = [...keeper.servedLayers.values(), ...keeper.servedTrees.values()];
    const layers = [...this.#layerNumbers.values()].map((at) => join(stateDir, "l", String(at)));
    const chains = [...this.#chains.values()].map((chain) => chain.path);
    return [...isServed, ...layers, ...chains].includes(path);
  }

  /** Of a chain that was mounted and not recorded. */
  async #stopUnknownTrees(wait: Wait): Promise<void> {
    const { keeper, stateDir } = this.#options;
    const known = new Set([...this.#chains.values()].map((chain) => chain.path));
    for (const [treeId, path] of [...keeper.servedTrees]) {
      if (path.startsWith(`${stateDir}/c/`) && !known.has(path)) {
        await keeper.stopTree(treeId, wait);
      }
    }
  }

  /** The keeper's client has had the tree served again at the same place. */
  async #adoptTree(key: string, chain: MountedChain): Promise<void> {
    const mount = mountAt(await readMountInfo(), chain.path);
    if (this.#options.keeper.servedTrees.get(chain.chainId) !== chain.path) return;
    this.#chains.set(key, { ...chain, device: mount?.device ?? "" });
    await this.#save();
  }

  async #remount(chain: MountedChain, wait: Wait): Promise<void> {
    if ((await this.#health(chain)) === "alive") return;
    const layers = chain.layers.flatMap(({ layerId }) => this.#sources.get(layerId) ?? []);
    if (layers.length < chain.layers.length) return; // not asked for since our start
    const isOwn = chain.path.startsWith(`${this.#options.stateDir}/c/`);
    const target = isOwn ? undefined : chain.path;
    this.#options.log.warn("chain-mount-replaced", { chainId: chain.chainId, path: chain.path });
    await clearMounts(chain.path);
    await this.#mountAt({ ...chain, layers, target }, chain.path, wait);
  }

  /**
   * Unmounts a chain and those of its layers that no other chain holds. False when somebody uses
   * it: then it stays for the time being.
   */
  async releaseChain(
    chainId: string,
    options: Wait & { readonly target?: string | undefined },
  ): Promise<boolean> {
    return this.#turns.run(options, async () => {
      const key = keyOf(chainId, options.target);
      const chain = this.#chains.get(key);
      if (chain === undefined) return true;
      const isReleased = await this.#unmountChain(key, chain, { ...options, force: false });
      if (!isReleased) this.#unwanted.add(key);
      const layerIds = chain.layers.map((layer) => layer.layerId);
      await this.#stopUnusedLayers(options, new Set(layerIds));
      return isReleased;
    });
  }

  async #unmountUnwanted(wait: Wait): Promise<void> {
    for (const key of [...this.#unwanted]) {
      const chain = this.#chains.get(key);
      const isGone =
        chain === undefined || (await this.#unmountChain(key, chain, { ...wait, force: false }));
      if (isGone) this.#unwanted.delete(key);
    }
    await this.#stopUnusedLayers(wait, new Set());
  }

  /** What is in use now is not for ever: a container's last mount goes a little after it. */
  #retryLater(): void {
    if (this.#cancelRetry !== undefined || this.#life.signal.aborted) return;
    this.#cancelRetry = this.#options.clock.timer(UNWANTED_RETRY_MS, () => {
      this.#cancelRetry = undefined;
      const wait = { signal: this.#life.signal };
      this.#turns
        .run(wait, () => this.#unmountUnwanted(wait))
        .catch((error: unknown) => {
          if (!wait.signal.aborted) this.#options.log.warn("mounts-not-released", { err: error });
        });
    });
  }

  /** Answers how many mounts remain, chains and layers. */
  async unmountAll(options: Wait & { readonly unusedOnly: boolean }): Promise<number> {
    return this.#turns.run(options, async () => {
      this.#adoptNumbers();
      for (const [key, chain] of [...this.#chains]) {
        await this.#unmountChain(key, chain, { ...options, force: !options.unusedOnly });
      }
      await this.#stopUnusedLayers(options, new Set(this.#layerNumbers.keys()));
      return this.#chains.size + this.#layerNumbers.size;
    });
  }

  async #unmountChain(
    key: string,
    chain: MountedChain,
    options: Wait & { readonly force: boolean },
  ): Promise<boolean> {
    const { keeper, log } = this.#options;
    const mounts = await readMountInfo();
    const tellInUse = (by: string): void => {
      const isKnown = this.#unwanted.has(key);
      if (!isKnown) log.info("chain-in-use", { chainId: chain.chainId, path: chain.path, by });
    };
    if (!options.force && isOverlayLower(overlayLowers(mounts), chain.path)) {
      tellInUse("overlay");
      return false;
    }
    if (isOurs(mountAt(mounts, chain.path), chain)) {
      try {
        if (chain.mode === "fuse" && !options.force && keeper.isConnected) {
          if (!(await keeper.stopTree(chain.chainId, options))) return false;
        } else await unmount(chain.path, { detach: options.force });
      } catch (error) {
        if (nativeErrno(error) !== "EBUSY") throw error;
        tellInUse("open files");
        return false;
      }
    }
    this.#chains.delete(key);
    await rmdir(chain.path).catch(() => undefined);
    await this.#save();
    log.info("chain-unmounted", { chainId: chain.chainId, path: chain.path });
    return true;
  }

  /**
   * Stops layers that no chain holds. A running container's overlay pins the chain's file system,
   * and that pins the data devices: the keeper answers "in use" and the layer is tried again
   * later. `recent` ones get a moment: the kernel lets go of them with a delay.
   */
  async #stopUnusedLayers(wait: Wait, recent: ReadonlySet<string>): Promise<void> {
    const held = new Set(
      [...this.#chains.values()].flatMap((chain) => chain.layers.map((layer) => layer.layerId)),
    );
    const unused = [...this.#layerNumbers.keys()].filter((layerId) => !held.has(layerId));
    if (this.#unwanted.size > 0) this.#retryLater();
    if (unused.length === 0 || !this.#options.keeper.isConnected) return;
    const stops = unused.map(async (layerId) => {
      if (!(await this.#stopLayer(layerId, recent.has(layerId) ? BUSY_TRIES : 1, wait))) return;
      const path = this.#layerPath(layerId);
      await clearMounts(path); // left by a keeper that died
      await rmdir(path).catch(() => undefined);
      this.#layerNumbers.delete(layerId);
      this.#sources.delete(layerId);
    });
    await Promise.all(stops);
    if (unused.some((layerId) => this.#layerNumbers.has(layerId))) this.#retryLater();
    await this.#save();
  }

  async #stopLayer(layerId: string, tries: number, wait: Wait): Promise<boolean> {
    const { keeper, clock, log } = this.#options;
    for (let attempt = 1; ; attempt += 1) {
      try {
        if (await keeper.stopLayer(layerId, wait)) return true;
      } catch (error) {
        log.warn("layer-not-stopped", { layerId, reason: errorMessage(error) });
        return false;
      }
      if (attempt >= tries) break;
      await clock.sleep(BUSY_WAIT_MS * attempt, wait);
    }
    log.debug("layer-in-use", { layerId, path: this.#layerPath(layerId) });
    return false;
  }

  async #save(): Promise<void> {
    await writeMountState(this.#statePath, {
      layers: this.#layerNumbers,
      chains: [...this.#chains.values()],
    });
  }

  /** Leaves all mounts as they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopListening();
    this.#cancelRetry?.();
    this.#life.abort(new DaemonError("canceled", "the mounts are left as they are"));
    const signal = new AbortController().signal;
    const release = await this.#turns.acquire({ signal });
    release();
  }
}

/** Makes the folder and answers its name without symbolic links. */
async function prepareTarget(target: string): Promise<string> {
  try {
    await mkdir(target, { recursive: true });
    return await realpath(target);
  } catch (error) {
    // ENOTCONN: the mount of a dead keeper, which is cleared before the next one is made.
    if (systemErrorName(error) === "ENOTCONN") {
      return join(await realpath(dirname(target)), basename(target));
    }
    throw withContext(error, `cannot mount on ${target}`, "failed-precondition");
  }
}

function isOurs(mount: MountInfo | undefined, chain: MountedChain): boolean {
  if (mount === undefined) return false;
  return mount.fsType === (chain.mode === "fuse" ? KEEPER_FS_TYPE : EROFS_FS_TYPE);
}
