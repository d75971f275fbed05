/** A node in this thread: the engine with its socket, its seeds and its key file. */
import { throwIfAborted } from "../../base/abort.ts";
import type { Clock } from "../../base/clock.ts";
import { errorMessage } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import { Scope } from "../../base/scope.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { MachineState } from "../transport/boot-id.ts";
import { DatagramSocket } from "../transport/datagram-socket.ts";
import { KeyRing } from "../transport/key-ring.ts";
import { checkNodeConfig } from "./config.ts";
import type { PeerNodeConfig } from "./config.ts";
import { Engine } from "./engine.ts";
import { isSameRing, readKeyFile } from "./key-file.ts";
import { MemberRanking } from "./member-ranking.ts";
import type { RankedMembers } from "./member-ranking.ts";
import { ownAddress } from "./own-address.ts";
import type { PeerNode } from "./peer-node.ts";
import { Positions } from "./positions.ts";
import type { PositionListener } from "./positions.ts";
import type { MembersReport } from "./report.ts";
import { SeedList, systemResolver } from "./seeds.ts";
import type { NameResolver } from "./seeds.ts";
import type { Streams } from "./streams.ts";
import { TokenWaits } from "./token-waits.ts";
import type { ComplaintReason, Position } from "../tree/index.ts";
import type { MakeTree, TreesReport } from "./tree-port.ts";

/** Names are resolved and seed files read again after this, ms; sooner while nobody is known. */
const RESOLVE_INTERVAL_MS = 30_000;
const RESOLVE_ALONE_INTERVAL_MS = 5000;
/** The key file is read again after this, ms. */
const KEY_INTERVAL_MS = 5000;
/** Leaving takes at most so long, ms; whoever did not hear of it finds out by probing. */
const LEAVE_MS_MAX = 500;

export interface LocalPeerNodeOptions {
  readonly config: PeerNodeConfig;
  readonly streams: Streams;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly makeTree: MakeTree;
  /** One MachineReader's `read` for all nodes of a process. */
  readonly machine: (host: string) => MachineState;
  readonly resolver?: NameResolver;
  /** Of the opening only. */
  readonly signal: AbortSignal;
}

interface Parts {
  readonly config: PeerNodeConfig;
  readonly ring: KeyRing;
  readonly socket: DatagramSocket;
  readonly engine: Engine;
  readonly seeds: SeedList;
  readonly positions: Positions;
  readonly tokens: TokenWaits;
  readonly selfListeners: Set<(self: PeerRef) => void>;
}

export class LocalPeerNode implements PeerNode {
  readonly #options: LocalPeerNodeOptions;
  readonly #parts: Parts;
  readonly #stop = new AbortController();
  readonly #ranking: MemberRanking;
  readonly #loops: readonly Promise<void>[];
  #ring: KeyRing;
  #closed: Promise<void> | undefined;

  /**
   * Throws `invalid-argument` for a bad configuration or key, `unavailable` for an address that
   * cannot be listened on, `failed-precondition` for a machine without an address.
   */
  static async open(options: LocalPeerNodeOptions): Promise<LocalPeerNode> {
    const scope = new Scope();
    try {
      return await LocalPeerNode.#open(options, scope);
    } catch (error) {
      await scope[Symbol.asyncDispose]();
      throw error;
    }
  }

  static async #open(options: LocalPeerNodeOptions, scope: Scope): Promise<LocalPeerNode> {
    const { clock, signal, log } = options;
    const config = checkNodeConfig(options.config);
    const ring = await openRing(config, log);
    const resolver = options.resolver ?? systemResolver;
    const seeds = new SeedList(config.seeds, { resolver, clock });
    await seeds.resolve({ signal });
    // The engine needs the socket, and what the socket receives is the engine's.
    const target: { engine?: Engine; node?: LocalPeerNode } = {};
    const socket = await DatagramSocket.open({
      ...config.bind,
      onPacket: (packet, from) => target.engine?.receive(packet, from),
      signal,
    });
    scope.use(socket);
    const address = await ownAddress(config, socket.local.port, seeds.addresses);
    throwIfAborted(signal);
    const positions = new Positions(clock);
    const tokens = new TokenWaits(clock);
    const selfListeners = new Set<(self: PeerRef) => void>();
    const engine = new Engine({
      ...{ config, ring, address, socket, clock, log },
      ...{ streams: options.streams, random: options.random, machine: options.machine },
      makeTree: options.makeTree,
      onTree: (effect) => {
        if (effect.kind === "position") positions.set(effect.image, effect.position);
        else if (effect.kind === "token-answer") tokens.answer(effect.id, effect.granted);
        else {
          const { kind, ...fields } = effect.event;
          log.debug("peer-tree", { change: kind, ...fields });
        }
      },
      onSelf: (self) => {
        for (const listener of selfListeners) listener(self);
      },
      onAddressLost: () => target.node?.findAddress(),
    });
    target.engine = engine;
    const parts = { config, ring, socket, engine, seeds, positions, tokens, selfListeners };
    const node = new LocalPeerNode(options, parts);
    target.node = node;
    log.info("peer-node-started", { id: config.id, host: address.host, port: address.port });
    return node;
  }

  private constructor(options: LocalPeerNodeOptions, parts: Parts) {
    this.#options = options;
    this.#parts = parts;
    this.#ring = parts.ring;
    this.#ranking = new MemberRanking(parts.config.id);
    this.#useSeeds();
    this.#loops = [this.#resolveAgain(), this.#readKeysAgain()];
  }

  get self(): PeerRef {
    return this.#parts.engine.self;
  }

  /** Alive and suspect members, this node included. */
  get presentCount(): number {
    return this.#parts.engine.presentCount;
  }

  /** Calls back after a change of boot or address; the returned function stops that. */
  onSelf(listener: (self: PeerRef) => void): () => void {
    const { selfListeners } = this.#parts;
    selfListeners.add(listener);
    return () => {
      selfListeners.delete(listener);
    };
  }

  join(image: string): void {
    this.#parts.engine.tree({ kind: "join", image });
  }

  leave(image: string): void {
    this.#parts.engine.tree({ kind: "leave", image });
    this.#parts.positions.set(image, undefined);
  }

  held(image: string, blocks: number): void {
    this.#parts.engine.tree({ kind: "held", image, blocks });
  }

  serving(image: string, bytesPerSecond: number): void {
    this.#parts.engine.tree({ kind: "serving", image, bytesPerSecond });
  }

  complain(image: string, about: string, reason: ComplaintReason): void {
    this.#parts.engine.tree({ kind: "complain", image, about, reason });
  }

  async requestToken(
    image: string,
    bytes: number,
    options: { readonly signal: AbortSignal },
  ): Promise<boolean> {
    const { tokens, engine } = this.#parts;
    return tokens.wait((id) => {
      engine.tree({ kind: "token", image, bytes, id });
    }, options);
  }

  position(image: string): Position | undefined {
    return this.#parts.positions.get(image);
  }

  onPosition(listener: PositionListener): () => void {
    return this.#parts.positions.listen(listener);
  }

  async members(): Promise<MembersReport> {
    const { engine, socket, seeds } = this.#parts;
    const { watch } = engine;
    return {
      self: engine.self,
      healthScore: engine.healthScore,
      members: watch.report((address) => engine.isSeed(address)),
      seeds: seeds.report,
      findings: watch.findings,
      packets: { ...socket.counters, dropped: engine.dropped, refused: { ...watch.refused } },
    };
  }

  async rank(key: string, othersMax: number): Promise<RankedMembers> {
    const { members } = this.#parts.engine;
    return this.#ranking.rank(key, { members, othersMax, nowMs: this.#options.clock.nowMs() });
  }

  async trees(): Promise<TreesReport> {
    return this.#parts.engine.trees();
  }

  async onPushPull(records: Uint8Array): Promise<Uint8Array> {
    return this.#parts.engine.onPushPull(records);
  }

  /** Leaves the cluster, LEAVE_MS_MAX at most, and stops. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    await this.#closed;
  }

  /** Stops at once, as a crash would: nobody is told. */
  async kill(): Promise<void> {
    this.#closed ??= this.#end();
    await this.#closed;
  }

  findAddress(): void {
    const { config, socket, seeds, engine } = this.#parts;
    ownAddress(config, socket.local.port, seeds.addresses).then(
      (address) => {
        engine.setAddress(address);
      },
      (error: unknown) => {
        this.#options.log.error("peer-address", { err: error });
      },
    );
  }

  async #close(): Promise<void> {
    const stopTimer = this.#options.clock.timer(LEAVE_MS_MAX, () => {
      this.#parts.engine[Symbol.dispose]();
    });
    await this.#parts.engine.leave();
    stopTimer();
    await this.#end();
  }

  async #end(): Promise<void> {
    this.#parts.engine[Symbol.dispose]();
    this.#parts.positions[Symbol.dispose]();
    this.#stop.abort();
    await this.#parts.socket[Symbol.asyncDispose]();
    await Promise.all(this.#loops);
  }

  async #resolveAgain(): Promise<void> {
    const { seeds, engine } = this.#parts;
    if (this.#parts.config.seeds.length === 0) return;
    await this.#repeat(
      () => (engine.presentCount === 1 ? RESOLVE_ALONE_INTERVAL_MS : RESOLVE_INTERVAL_MS),
      async (signal) => {
        await seeds.resolve({ signal });
        this.#useSeeds();
      },
    );
  }

  #useSeeds(): void {
    const { seeds, engine } = this.#parts;
    engine.setSeeds(seeds.addresses);
    for (const { entry, error } of seeds.report) {
      if (error === undefined) engine.watch.clear("seed-unresolved", entry);
      else engine.watch.note("seed-unresolved", entry, error);
    }
  }

  async #readKeysAgain(): Promise<void> {
    const { keys } = this.#parts.config;
    if (!("file" in keys)) return;
    await this.#repeat(
      () => KEY_INTERVAL_MS,
      async () => {
        await this.#readKeys(keys.file);
      },
    );
  }

  async #readKeys(path: string): Promise<void> {
    const { engine } = this.#parts;
    try {
      const { ring, isExposed } = await readKeyFile(path);
      if (isExposed) engine.watch.note("key-file", path, EXPOSED);
      else engine.watch.clear("key-file", path);
      if (isSameRing(ring, this.#ring)) return;
      this.#ring = ring;
      engine.rotate(ring);
      this.#options.log.info("peer-keys-changed", { keys: ring.keys.length });
    } catch (error) {
      engine.watch.note("key-file", path, `the keys stay as they were: ${errorMessage(error)}`);
    }
  }

  /** Until the node stops. */
  async #repeat(
    intervalMs: () => number,
    work: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const { signal } = this.#stop;
    try {
      for (;;) {
        await this.#options.clock.sleep(intervalMs(), { signal });
        await work(signal);
      }
    } catch (error) {
      if (!signal.aborted) this.#options.log.error("peer-node-loop", { err: error });
    }
  }
}

const EXPOSED = "others than its owner can read it";

async function openRing({ keys }: PeerNodeConfig, log: Logger): Promise<KeyRing> {
  if ("secrets" in keys) return new KeyRing(keys.secrets);
  const { ring, isExposed } = await readKeyFile(keys.file);
  if (isExposed) log.warn("peer-finding", { finding: "key-file", who: keys.file, detail: EXPOSED });
  return ring;
}
