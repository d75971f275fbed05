/**
 * The keeper: holds the FUSE sessions and nothing else, so that the rest may die. It knows no
 * image, opens no network connection and parses nothing that came from one, except, in fuse mode,
 * a metadata image that the image service wrote.
 */
import { DaemonError, errorMessage, withContext } from "../base/errors.ts";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import type { ControlConnection, HandlerContext, Handlers } from "../control/index.ts";
import { FUSE_FS_TYPE, FuseSession } from "../fuse/index.ts";
import { DataFileSystem } from "./data-file-system.ts";
import { FetchQueue } from "./fetch-queue.ts";
import { LayerDevice } from "./layer-device.ts";
import type { ReadCounters } from "./layer-device.ts";
import {
  parseForce,
  parseLayer,
  parseRanges,
  parseServeLayer,
  parseServeTree,
  parseTree,
} from "./messages.ts";
import type { ServeLayerRequest, ServeTreeRequest } from "./messages.ts";
import { TouchedLog } from "./touched-log.ts";
import { openTreeMetadata, TreeFileSystem } from "./tree-file-system.ts";

/** Layers and trees of one node. */
export const LAYERS_MAX = 4096;
export const TREES_MAX = 1024;
export const TOUCHED_REPORT_MS = 5000;
/** How often a keeper that is to leave looks whether the rest is unused by now. */
export const LEAVING_CHECK_MS = 5000;

interface ServedLayer {
  readonly device: LayerDevice;
  mountpoint: string;
  session: FuseSession | undefined;
  /** Serves and stops of one layer follow each other. */
  busy: Promise<void>;
}

interface ServedTree {
  readonly mountpoint: string;
  readonly session: FuseSession;
  readonly layers: readonly string[];
}

export interface KeeperOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly version: string;
  readonly instance: string;
  /** Called when it was told to leave and nothing is mounted any more. */
  readonly onEmpty: () => void;
  readonly signal: AbortSignal;
}

export class Keeper implements AsyncDisposable {
  readonly #options: KeeperOptions;
  readonly #queue: FetchQueue;
  /** Of sessions that are closed. */
  #threadsBefore = 0;
  readonly #touched = new TouchedLog();
  readonly #counters: ReadCounters = { reads: 0, readsPresent: 0, readsMissed: 0, bytes: 0 };
  readonly #layers = new Map<string, ServedLayer>();
  readonly #trees = new Map<string, ServedTree>();
  #treesBusy: Promise<void> = Promise.resolve();
  #cancelLeaving: (() => void) | undefined;
  #cancelReport: (() => void) | undefined;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#queue = new FetchQueue({ clock: options.clock, log: options.log });
    this.#scheduleReport();
  }

  handlers(): Handlers {
    const current =
      (handle: (request: unknown) => Promise<object>) =>
      async (request: unknown, context: HandlerContext): Promise<object> => {
        if (this.#queue.link !== context.connection) {
          throw new DaemonError("failed-precondition", "another image service has taken over");
        }
        return handle(request);
      };
    return {
      "Keeper.Hello": (_request, context) => Promise.resolve(this.#hello(context.connection)),
      "Keeper.ServeLayer": current((request) => this.#serveLayer(parseServeLayer(request))),
      "Keeper.StopLayer": current((request) => this.#stopLayer(parseLayer(request))),
      "Keeper.ServeTree": current((request) => this.#serveTree(parseServeTree(request))),
      "Keeper.StopTree": current((request) => this.#stopTree(parseTree(request))),
      "Keeper.Present": current((request) => {
        const { layer, ranges } = parseRanges(request);
        this.#layers.get(layer)?.device.addPresent(ranges);
        return Promise.resolve({});
      }),
      "Keeper.Drop": current(async (request) => {
        const { layer, ranges } = parseRanges(request);
        await this.#layers.get(layer)?.device.drop(ranges);
        return {};
      }),
      "Keeper.Stats": () => Promise.resolve(this.#stats()),
      "Keeper.Shutdown": async (request) => ({
        remaining: await this.shutdown({ force: parseForce(request) }),
      }),
    };
  }

  #stats(): object {
    let threads = this.#threadsBefore;
    for (const { session } of this.#layers.values()) threads += session?.threads ?? 0;
    for (const { session } of this.#trees.values()) threads += session.threads;
    return { ...this.#counters, waiting: this.#queue.size, threads };
  }

  #hello(connection: ControlConnection): object {
    this.#cancelLeaving?.();
    this.#cancelLeaving = undefined;
    this.#queue.attach(connection);
    void connection.closed.then(() => {
      this.#queue.detach(connection);
      this.#options.log.info("image-service-left", { waiting: this.#queue.size });
    });
    this.#options.log.info("image-service-connected", { layers: this.#layers.size });
    return {
      version: this.#options.version,
      pid: process.pid,
      instance: this.#options.instance,
      layers: [...this.#layers]
        .filter(([, served]) => served.session !== undefined)
        .map(([layer, { mountpoint }]) => ({ layer, mountpoint })),
      trees: [...this.#trees].map(([tree, { mountpoint }]) => ({ tree, mountpoint })),
    };
  }

  async #serveLayer(request: ServeLayerRequest): Promise<object> {
    let served = this.#layers.get(request.layer);
    const isNew = served === undefined;
    if (served === undefined) {
      if (this.#layers.size >= LAYERS_MAX) {
        throw new DaemonError("resource-exhausted", `over ${LAYERS_MAX} layers`);
      }
      const device = new LayerDevice(request, {
        layer: request.layer,
        queue: this.#queue,
        touched: this.#touched,
        counters: this.#counters,
        log: this.#options.log,
      });
      served = { device, mountpoint: "", session: undefined, busy: Promise.resolve() };
      this.#layers.set(request.layer, served);
    }
    // At once, before anything is awaited: a drop that comes next must find the new state.
    const ready = served.device.serve(request);
    const layer = served;
    const turn = layer.busy.then(() => this.#mountLayer(layer, request.mountpoint));
    layer.busy = turn.catch(() => undefined);
    const results = await Promise.allSettled([ready, turn]);
    const failed = results.find((result) => result.status === "rejected");
    if (failed === undefined) return {};
    if (isNew) await this.#unmountLayer(request.layer, layer, { detach: true });
    throw withContext(failed.reason, `cannot serve layer ${request.layer}`);
  }

  async #mountLayer(layer: ServedLayer, mountpoint: string): Promise<void> {
    if (mountpoint === "") return;
    const session = layer.session;
    if (session !== undefined) {
      const mount = mountAt(await readMountInfo(), session.mountpoint);
      if (mount?.fsType === FUSE_FS_TYPE) {
        if (layer.mountpoint === mountpoint) return;
        throw new DaemonError(
          "failed-precondition",
          `the layer is served at ${layer.mountpoint}, not ${mountpoint}`,
        );
      }
      // Somebody unmounted it behind our back.
      layer.session = undefined;
      await session.unmount({ detach: true });
    }
    layer.session = await FuseSession.mount(mountpoint, new DataFileSystem(layer.device), {
      allowSpecial: false,
      log: this.#options.log,
      signal: this.#options.signal,
    });
    layer.mountpoint = mountpoint;
  }

  async #stopLayer(id: string): Promise<object> {
    const layer = this.#layers.get(id);
    if (layer === undefined) return {};
    const turn = layer.busy.then(() => this.#unmountLayer(id, layer, { detach: false }));
    layer.busy = turn.catch(() => undefined);
    await turn;
    return {};
  }

  async #unmountLayer(
    id: string,
    layer: ServedLayer,
    options: { readonly detach: boolean },
  ): Promise<void> {
    if (this.#layers.get(id) !== layer) return;
    for (const tree of this.#trees.values()) {
      if (tree.layers.includes(id)) {
        throw new DaemonError("failed-precondition", `layer ${id} is used by ${tree.mountpoint}`);
      }
    }
    await layer.session?.unmount(options);
    this.#threadsBefore += layer.session?.threads ?? 0;
    this.#layers.delete(id);
    this.#queue.cancelLayer(id, new DaemonError("canceled", "the layer is no longer served"));
    await layer.device[Symbol.asyncDispose]();
  }

  async #serveTree(request: ServeTreeRequest): Promise<object> {
    const turn = this.#treesBusy.then(() => this.#mountTree(request));
    this.#treesBusy = turn.catch(() => undefined);
    await turn;
    return {};
  }

  async #mountTree(request: ServeTreeRequest): Promise<void> {
    const known = this.#trees.get(request.tree);
    if (known !== undefined) {
      const mount = mountAt(await readMountInfo(), known.mountpoint);
      const isAlive = mount?.fsType === FUSE_FS_TYPE;
      if (isAlive && known.mountpoint === request.mountpoint) return;
      if (isAlive) {
        throw new DaemonError("failed-precondition", `tree is served at ${known.mountpoint}`);
      }
      await known.session.unmount({ detach: true });
      this.#trees.delete(request.tree);
    }
    if (this.#trees.size >= TREES_MAX) {
      throw new DaemonError("resource-exhausted", `over ${TREES_MAX} trees`);
    }
    const devices = request.layers.map((layer) => {
      const served = this.#layers.get(layer);
      if (served === undefined) {
        throw new DaemonError("failed-precondition", `layer ${layer} is not served`);
      }
      return served.device;
    });
    const metadata = await openTreeMetadata(request.metadataPath);
    const fileSystem = new TreeFileSystem(metadata, devices);
    const session = await FuseSession.mount(request.mountpoint, fileSystem, {
      allowSpecial: true,
      context: request.context,
      log: this.#options.log,
      signal: this.#options.signal,
    });
    const { mountpoint, layers } = request;
    this.#trees.set(request.tree, { mountpoint, session, layers });
  }

  async #stopTree(id: string): Promise<object> {
    const turn = this.#treesBusy.then(async () => {
      await this.#trees.get(id)?.session.unmount({ detach: false });
      this.#trees.delete(id);
    });
    this.#treesBusy = turn.catch(() => undefined);
    await turn;
    return {};
  }

  /**
   * Unmounts what nobody uses, with `force` everything. Answers how many mounts remain; leaves as
   * soon as none does, unless an image service says Hello before.
   */
  async shutdown(options: { readonly force: boolean }): Promise<number> {
    this.#cancelLeaving?.();
    this.#cancelLeaving = undefined;
    for (const [id, tree] of [...this.#trees]) {
      try {
        await tree.session.unmount({ detach: options.force });
        this.#trees.delete(id);
      } catch (error) {
        this.#logInUse(tree.mountpoint, error);
      }
    }
    for (const [id, layer] of [...this.#layers]) {
      try {
        await this.#unmountLayer(id, layer, { detach: options.force });
      } catch (error) {
        this.#logInUse(layer.mountpoint, error);
      }
    }
    const remaining = this.#layers.size + this.#trees.size;
    if (remaining === 0) this.#options.onEmpty();
    else {
      this.#cancelLeaving = this.#options.clock.timer(LEAVING_CHECK_MS, () => {
        void this.shutdown({ force: false });
      });
    }
    return remaining;
  }

  #logInUse(mountpoint: string, error: unknown): void {
    this.#options.log.info("mount-in-use", { mountpoint, reason: errorMessage(error) });
  }

  #scheduleReport(): void {
    this.#cancelReport = this.#options.clock.timer(TOUCHED_REPORT_MS, () => {
      void this.#report().finally(() => {
        if (this.#cancelReport !== undefined) this.#scheduleReport();
      });
    });
  }

  /** Never rejects: a lost report costs nothing but a little of the order of eviction. */
  async #report(): Promise<void> {
    const link = this.#queue.link;
    if (link === undefined) return;
    const controller = new AbortController();
    const cancel = this.#options.clock.timer(TOUCHED_REPORT_MS, () => {
      controller.abort(new DaemonError("deadline-exceeded", "the report took too long"));
    });
    try {
      for (const report of this.#touched.take()) {
        await link.call("Fetcher.Touched", report, { signal: controller.signal });
      }
    } catch (error) {
      this.#options.log.debug("touched-report-lost", { err: error });
    } finally {
      cancel();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancelReport?.();
    this.#cancelReport = undefined;
    this.#cancelLeaving?.();
    for (const tree of this.#trees.values()) await tree.session[Symbol.asyncDispose]();
    this.#trees.clear();
    for (const [id, layer] of [...this.#layers]) {
      await this.#unmountLayer(id, layer, { detach: true });
    }
  }
}
