/**
 * The image service's side of the keeper: one connection, made again whenever it is lost. After
 * every (re)connect it says Hello and serves all wanted layers and trees again, with what is
 * present at that moment.
 *
 * Whoever evicts must (1) take the range out of its own books, (2) await `drop`, (3) only then
 * punch the hole. Whoever fills must have the bytes in the decoded file before it says `present`.
 */
import { raceAbort, throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorCode, systemErrorName } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { RangeSet } from "../base/range-set.ts";
import type { ByteRange } from "../base/range-set.ts";
import { connectControl } from "../control/index.ts";
import type { ControlConnection, Handlers } from "../control/index.ts";
import { parseFetch, parseHello, parseRemaining, parseStats, parseTouched } from "./messages.ts";
import type { KeeperHello, KeeperStats } from "./messages.ts";

export const RECONNECT_MS_MIN = 20;
export const RECONNECT_MS_MAX = 1000;
/** Layers told to the keeper at once after a reconnect. */
const RESERVE_PARALLEL = 8;
/** Ranges in one message; what is beyond them is asked for again, or told in further messages. */
const RANGES_MAX = 65_536;
/** A data device is padded to whole EROFS blocks. */
export const DEVICE_BLOCK_BYTES = 512;

type Wait = Readonly<{ signal: AbortSignal }>;

export interface ServedLayer {
  /** diff ID, hex. */
  readonly layerId: string;
  readonly tarBytes: number;
  /** Sparse, there from now on until the layer is stopped. */
  readonly decodedPath: string;
  /** Asked again at each (re)connect; answers at once. */
  readonly present: () => Iterable<ByteRange>;
  /** Where the data device is mounted; empty when only trees read it. */
  readonly mountpoint: string;
}

export interface ServedTree {
  /** chain ID, hex. */
  readonly treeId: string;
  readonly mountpoint: string;
  readonly metadataPath: string;
  /** Bottom first. */
  readonly layerIds: readonly string[];
  readonly context?: string | undefined;
}

/** Either the range is in the decoded file now, or here are exactly its bytes (not kept). */
export type FetchReply = { readonly present: readonly ByteRange[] } | { readonly data: Uint8Array };

export interface KeeperClientOptions {
  readonly socketPath: string;
  readonly clock: Clock;
  readonly log: Logger;
  /** A read waits this long for its block, then it is EIO. */
  readonly readWaitMs: number;
  readonly onFetch: (layerId: string, range: ByteRange, wait: Wait) => Promise<FetchReply>;
  readonly onTouched?: (layerId: string, ranges: readonly ByteRange[]) => void;
  /** Injected so that tests decide when a message arrives. */
  readonly connect?: typeof connectControl;
}

/** `isOther`: another keeper process than the one before took over. */
export type ConnectListener = (isOther: boolean) => Promise<void>;

export class KeeperClient implements AsyncDisposable {
  readonly #options: KeeperClientOptions;
  readonly #controller = new AbortController();
  readonly #running: Promise<void>;
  #connection: ControlConnection | undefined;
  #hello: KeeperHello | undefined;
  /** The last keeper's process is gone: nothing that it believed matters any more. */
  #isKeeperDead = false;
  /** Wanted: served again after every reconnect. */
  readonly #layers = new Map<string, ServedLayer>();
  readonly #trees = new Map<string, ServedTree>();
  /** Mountpoints of what the keeper serves, this process' wish or an earlier one's. */
  #servedLayers = new Map<string, string>();
  #servedTrees = new Map<string, string>();
  readonly #connectWaiters = new Set<(connection: ControlConnection) => void>();
  readonly #deathWaiters = new Set<() => void>();
  readonly #connectListeners = new Set<ConnectListener>();

  /** Starts to connect at once. */
  constructor(options: KeeperClientOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  get isConnected(): boolean {
    return this.#connection?.isClosed === false;
  }

  /** What the keeper said when it was last connected to. */
  get hello(): KeeperHello | undefined {
    return this.#hello;
  }

  /** Mountpoints by layer (empty: without a mount of its own). */
  get servedLayers(): ReadonlyMap<string, string> {
    return this.#servedLayers;
  }

  get servedTrees(): ReadonlyMap<string, string> {
    return this.#servedTrees;
  }

  /** Resolves when connected and everything wanted is served (again). */
  async connected(wait: Wait): Promise<KeeperHello> {
    await this.#connected({ signal: AbortSignal.any([wait.signal, this.#controller.signal]) });
    if (this.#hello === undefined) throw new DaemonError("internal", "connected without a Hello");
    return this.#hello;
  }

  /** Called now, if connected, and after every reconnect once everything wanted is served again. */
  onConnected(listener: ConnectListener): () => void {
    this.#connectListeners.add(listener);
    if (this.isConnected) this.#tell(listener, false);
    return () => this.#connectListeners.delete(listener);
  }

  async serveLayer(layer: ServedLayer, wait: Wait): Promise<void> {
    const known = this.#layers.get(layer.layerId);
    this.#layers.set(layer.layerId, layer);
    try {
      await this.#call("Keeper.ServeLayer", () => this.#layerMessage(layer), wait);
      this.#servedLayers.set(layer.layerId, layer.mountpoint);
    } catch (error) {
      if (known === undefined && this.#layers.get(layer.layerId) === layer) {
        this.#layers.delete(layer.layerId);
      }
      throw error;
    }
  }

  /** False while anybody uses the mount; the layer then goes on being served. */
  async stopLayer(layerId: string, wait: Wait): Promise<boolean> {
    if (!(await this.#stop("Keeper.StopLayer", { layer: layerId }, wait))) return false;
    this.#layers.delete(layerId);
    this.#servedLayers.delete(layerId);
    return true;
  }

  async serveTree(tree: ServedTree, wait: Wait): Promise<void> {
    await this.#call("Keeper.ServeTree", () => treeMessage(tree), wait);
    this.#trees.set(tree.treeId, tree);
    this.#servedTrees.set(tree.treeId, tree.mountpoint);
  }

  /** False while anybody uses the mount. */
  async stopTree(treeId: string, wait: Wait): Promise<boolean> {
    const known = this.#trees.get(treeId);
    this.#trees.delete(treeId); // not to come back after a reconnect meanwhile
    if (await this.#stop("Keeper.StopTree", { tree: treeId }, wait)) {
      this.#servedTrees.delete(treeId);
      return true;
    }
    if (known !== undefined) this.#trees.set(treeId, known);
    return false;
  }

  /** Tells the keeper; a lost message costs one question. Call it before any later `drop`. */
  present(layerId: string, ranges: readonly ByteRange[]): void {
    const connection = this.#connection;
    if (connection === undefined || connection.isClosed || ranges.length === 0) return;
    const options = { signal: this.#controller.signal };
    connection
      .call("Keeper.Present", { layer: layerId, ranges: ranges.slice(0, RANGES_MAX) }, options)
      .catch((error: unknown) => {
        this.#options.log.debug("present-not-told", { layerId, err: error });
      });
  }

  /**
   * Resolves when no read of these ranges is or will be under way: the keeper has said so, or the
   * keeper that knew of them is dead. While that is unknown (the connection is lost but the
   * process lives) it waits: punching then would put zeros before readers.
   */
  async drop(layerId: string, ranges: readonly ByteRange[], wait: Wait): Promise<void> {
    throwIfAborted(wait.signal);
    if (ranges.length === 0 || this.#isKeeperDead) return;
    const done = new AbortController();
    let onDeath: (() => void) | undefined;
    const death = new Promise<void>((resolve) => {
      onDeath = resolve;
      this.#deathWaiters.add(resolve);
    });
    try {
      const signal = AbortSignal.any([wait.signal, done.signal]);
      for (let at = 0; at < ranges.length; at += RANGES_MAX) {
        const request = { layer: layerId, ranges: ranges.slice(at, at + RANGES_MAX) };
        await Promise.race([this.#call("Keeper.Drop", () => request, { signal }), death]);
      }
    } finally {
      if (onDeath !== undefined) this.#deathWaiters.delete(onDeath);
      done.abort(new DaemonError("canceled", "the keeper is gone"));
    }
  }

  async stats(wait: Wait): Promise<KeeperStats> {
    return parseStats(await this.#call("Keeper.Stats", () => ({}), wait));
  }

  /**
   * Asks the keeper to unmount what nobody uses (with `force`: everything) and to leave when
   * nothing is left. Answers what remains; nothing is served again after a reconnect.
   */
  async shutdown(options: Wait & { readonly force: boolean }): Promise<number> {
    const { force } = options;
    const answer = await this.#call("Keeper.Shutdown", () => ({ force }), options);
    this.#layers.clear();
    this.#trees.clear();
    return parseRemaining(answer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#controller.abort(new DaemonError("canceled", "the keeper's client is closed"));
    await this.#connection?.[Symbol.asyncDispose]();
    await this.#running;
  }

  #layerMessage(layer: ServedLayer): object {
    return {
      layer: layer.layerId,
      mountpoint: layer.mountpoint,
      size: Math.ceil(layer.tarBytes / DEVICE_BLOCK_BYTES) * DEVICE_BLOCK_BYTES,
      tarBytes: layer.tarBytes,
      decodedPath: layer.decodedPath,
      present: presentIn(layer).slice(0, RANGES_MAX),
      readWaitMs: this.#options.readWaitMs,
    };
  }

  async #stop(method: string, request: object, wait: Wait): Promise<boolean> {
    try {
      await this.#call(method, () => request, wait);
      return true;
    } catch (error) {
      if (errorCode(error) === "failed-precondition") return false;
      throw error;
    }
  }

  /** Waits for a connection and asks again on the next one when it is lost. */
  async #call(method: string, request: () => object, wait: Wait): Promise<unknown> {
    const signal = AbortSignal.any([wait.signal, this.#controller.signal]);
    for (;;) {
      const connection = await this.#connected({ signal });
      try {
        return await connection.call(method, request(), { signal });
      } catch (error) {
        if (!connection.isClosed || errorCode(error) !== "unavailable") throw error;
      }
    }
  }

  async #connected(wait: Wait): Promise<ControlConnection> {
    const connection = this.#connection;
    if (connection?.isClosed === false) return connection;
    let onConnected: ((connection: ControlConnection) => void) | undefined;
    const next = new Promise<ControlConnection>((resolve) => {
      onConnected = resolve;
      this.#connectWaiters.add(resolve);
    });
    try {
      return await raceAbort(next, wait.signal);
    } finally {
      if (onConnected !== undefined) this.#connectWaiters.delete(onConnected);
    }
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    const { signal } = this.#controller;
    const { socketPath, clock, log, connect = connectControl } = this.#options;
    let delayMs = RECONNECT_MS_MIN;
    while (!this.#isClosing()) {
      try {
        const connection = await connect(socketPath, this.#handlers(), { signal });
        try {
          await this.#establish(connection);
          delayMs = RECONNECT_MS_MIN;
          await connection.closed;
        } finally {
          this.#connection = undefined;
          await connection[Symbol.asyncDispose]();
        }
        if (!this.#isClosing()) log.warn("keeper-lost", { pid: this.#hello?.pid ?? 0 });
      } catch (error) {
        if (!this.#isClosing()) log.debug("keeper-not-reached", { err: error });
      }
      this.#noteDeath();
      await clock.sleep(delayMs, { signal }).catch(() => undefined);
      delayMs = Math.min(delayMs * 2, RECONNECT_MS_MAX);
    }
  }

  #isClosing(): boolean {
    return this.#controller.signal.aborted;
  }

  async #establish(connection: ControlConnection): Promise<void> {
    const { signal } = this.#controller;
    const { log } = this.#options;
    const before = this.#hello;
    const hello = parseHello(await connection.call("Keeper.Hello", {}, { signal }));
    const isOther = before !== undefined && before.instance !== hello.instance;
    this.#hello = hello;
    this.#isKeeperDead = false;
    this.#servedLayers = new Map(hello.layers);
    this.#servedTrees = new Map(hello.trees);
    log.info("keeper-connected", { pid: hello.pid, layers: hello.layers.size, isOther });
    await this.#reserve(connection);
    if (connection.isClosed) return;
    this.#connection = connection;
    for (const waiter of [...this.#connectWaiters]) waiter(connection);
    // Not awaited: a listener's own calls may need the next connection.
    for (const listener of this.#connectListeners) this.#tell(listener, isOther);
  }

  #tell(listener: ConnectListener, isOther: boolean): void {
    listener(isOther).catch((error: unknown) => {
      if (!this.#isClosing()) this.#options.log.error("mounts-not-restored", { err: error });
    });
  }

  /** Layers first: trees need them. A failure is told and left to the next mount of the chain. */
  async #reserve(connection: ControlConnection): Promise<void> {
    const { signal } = this.#controller;
    const serve = async (method: string, message: object): Promise<boolean> => {
      try {
        await connection.call(method, message, { signal });
        return true;
      } catch (error) {
        this.#options.log.warn("not-served-again", { method, err: error });
        return false;
      }
    };
    const layers = [...this.#layers.values()];
    for (let at = 0; at < layers.length; at += RESERVE_PARALLEL) {
      const batch = layers.slice(at, at + RESERVE_PARALLEL).map(async (layer) => {
        const isServed = await serve("Keeper.ServeLayer", this.#layerMessage(layer));
        if (isServed) this.#servedLayers.set(layer.layerId, layer.mountpoint);
      });
      await Promise.all(batch);
    }
    for (const tree of this.#trees.values()) {
      const isServed = await serve("Keeper.ServeTree", treeMessage(tree));
      if (isServed) this.#servedTrees.set(tree.treeId, tree.mountpoint);
    }
  }

  /** Source: kill(2): ESRCH proves that no process has this id any more. */
  #noteDeath(): void {
    if (this.#hello === undefined || this.#isKeeperDead) return;
    try {
      process.kill(this.#hello.pid, 0);
      return;
    } catch (error) {
      if (systemErrorName(error) !== "ESRCH") return;
    }
    this.#isKeeperDead = true;
    for (const waiter of [...this.#deathWaiters]) waiter();
  }

  #handlers(): Handlers {
    return {
      "Fetcher.Fetch": async (request, { signal }) => {
        const { layerId, range } = parseFetch(request);
        const reply = await this.#options.onFetch(layerId, range, { signal });
        if ("present" in reply) return { present: reply.present };
        if (reply.data.length !== range.end - range.start) {
          throw new DaemonError("internal", `${reply.data.length} bytes for a fetch`);
        }
        return { data: reply.data };
      },
      "Fetcher.Touched": (request) => {
        const { layerId, ranges } = parseTouched(request);
        this.#options.onTouched?.(layerId, ranges);
        return Promise.resolve({});
      },
    };
  }
}

/** Without the device's padding, which the keeper makes up. */
function presentIn({ present, tarBytes }: ServedLayer): ByteRange[] {
  const ranges = RangeSet.of(present());
  ranges.remove({ start: tarBytes, end: Infinity });
  return [...ranges];
}

function treeMessage(tree: ServedTree): object {
  return {
    tree: tree.treeId,
    mountpoint: tree.mountpoint,
    metadataPath: tree.metadataPath,
    layers: tree.layerIds,
    context: tree.context ?? "",
  };
}
