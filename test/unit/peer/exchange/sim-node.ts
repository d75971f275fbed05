/** Nodes of a small tree in one process: real servers and clients, with a provider in memory. */
import { createHash } from "node:crypto";
import { systemClock } from "../../../../src/base/clock.ts";
import { DaemonError } from "../../../../src/base/errors.ts";
import { silentLogger } from "../../../../src/base/log.ts";
import { systemRandom } from "../../../../src/base/random.ts";
import { BlockTable, BlockTableBuilder, FETCH_PRIORITY } from "../../../../src/block/index.ts";
import type { BlobRun, Block, FetchPriority } from "../../../../src/block/index.ts";
import { digestOf, parseDigest } from "../../../../src/oci/index.ts";
import {
  BlockServer,
  ExchangeClient,
  ExchangeCounters,
  WaitBook,
} from "../../../../src/peer/exchange/index.ts";
import type {
  BlockProvider,
  DocumentProvider,
  MapProvider,
  OrderProvider,
  ProvidedBlock,
  SharedDocumentProvider,
  TreePosition,
  TreeSource,
  Trouble,
  WantedBlock,
} from "../../../../src/peer/exchange/index.ts";
import type { PeerRef } from "../../../../src/peer/peer-ref.ts";
import { Identity } from "../../../../src/peer/transport/identity.ts";
import { KeyRing } from "../../../../src/peer/transport/key-ring.ts";
import type { WireVersions } from "../../../../src/peer/wire-versions.ts";

export const IMAGE = parseDigest(`sha256:${"1a".repeat(32)}`);
export const LAYER = "2b".repeat(32);
export const RING = new KeyRing([Buffer.alloc(32, 7)]);
export const EPOCH = { counter: 3, manager: "manager" };
export const BLOCK_BYTES = 64 * 1024;
export const BLOCKS = 24;

/** The blob that all nodes speak of: block `i` is filled by its own pattern. */
export const BLOB = makeBlob();
export const BLOB_DIGEST = digestOf(BLOB);
export const TABLE = makeTable();

function makeBlob(): Buffer {
  const blob = Buffer.alloc(BLOCKS * BLOCK_BYTES);
  let state = 12345;
  for (let at = 0; at < blob.length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    blob.writeUInt32LE(state, at);
  }
  return blob;
}

function makeTable(): BlockTable {
  const builder = new BlockTableBuilder();
  for (let index = 0; index < BLOCKS; index += 1) {
    const bytes = bytesOfBlock(index);
    const sha256 = createHash("sha256").update(bytes).digest();
    const offset = index * BLOCK_BYTES;
    builder.add({
      tarOffset: offset,
      tarLength: BLOCK_BYTES,
      blobOffset: offset,
      blobLength: BLOCK_BYTES,
      codec: "none",
      startBits: 0,
      atMemberStart: false,
      windowOffset: 0,
      windowLength: 0,
      blobSha256: sha256,
      tarSha256: sha256,
    });
  }
  return BlockTable.parse(builder.finish(), { blobBytes: BLOB.length });
}

export function bytesOfBlock(index: number): Buffer {
  return BLOB.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
}

export function runOf(first: number, final = first): BlobRun {
  return {
    layerId: LAYER,
    blobDigest: BLOB_DIGEST,
    blobBytes: BLOB.length,
    range: { start: first * BLOCK_BYTES, end: (final + 1) * BLOCK_BYTES },
    firstBlock: first,
    lastBlock: final,
  };
}

export async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const piece of pieces) parts.push(Buffer.from(piece));
  return Buffer.concat(parts);
}

/** Where a root has a block from. */
export type Registry = (index: number, signal: AbortSignal) => AsyncIterable<Uint8Array>;

export const plainRegistry: Registry = async function* (index) {
  const bytes = bytesOfBlock(index);
  for (let at = 0; at < bytes.length; at += 16_384) yield bytes.subarray(at, at + 16_384);
};

/** A block under way: its bytes so far, and everybody who follows. */
class Flight {
  readonly bytes: Buffer;
  length = 0;
  #wake: (() => void)[] = [];
  #isOver = false;
  readonly verdict: Promise<void>;
  #settle: { resolve: () => void; reject: (error: unknown) => void } | undefined;

  constructor(length: number) {
    this.bytes = Buffer.alloc(length);
    this.verdict = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.verdict.catch(() => undefined);
  }

  add(piece: Uint8Array): void {
    this.bytes.set(piece, this.length);
    this.length += piece.length;
    this.#wakeAll();
  }

  finish(error?: unknown): void {
    this.#isOver = true;
    if (error === undefined) this.#settle?.resolve();
    else this.#settle?.reject(error);
    this.#wakeAll();
  }

  async *pieces(): AsyncGenerator<Uint8Array> {
    let at = 0;
    for (;;) {
      if (at < this.length) {
        const from = at;
        at = this.length;
        yield this.bytes.subarray(from, at);
      } else if (at === this.bytes.length) return;
      else if (this.#isOver) {
        await this.verdict;
        throw new DaemonError("unavailable", "the flight ended early");
      } else await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  #wakeAll(): void {
    for (const wake of this.#wake) wake();
    this.#wake = [];
  }
}

export interface SimNodeOptions {
  readonly registry?: Registry;
  /** Fetches whatever children ask for, as one that wants everything itself. */
  readonly isEager?: boolean;
  readonly ring?: KeyRing;
  /** By default so long that a busy machine hedges nothing. */
  readonly hedgeMs?: number;
  readonly maps?: MapProvider;
  readonly orders?: OrderProvider;
  readonly documents?: DocumentProvider;
  readonly versions?: WireVersions;
  readonly shared?: SharedDocumentProvider;
  /** Sends other bytes than it has: a liar. */
  readonly tamper?: (index: number, offset: number, piece: Uint8Array) => Uint8Array;
}

export class SimNode implements AsyncDisposable, BlockProvider {
  readonly id: string;
  readonly held = new Map<number, Buffer>();
  readonly counters = new ExchangeCounters();
  readonly waits = new WaitBook();
  readonly convicted: string[] = [];
  readonly troubles: [string, Trouble][] = [];
  readonly identity: Identity;
  readonly client: ExchangeClient;
  readonly server: BlockServer;
  readonly source: TreeSource;
  readonly registryReads: number[] = [];
  /** What children asked for. */
  readonly wanted: (WantedBlock & { readonly mayFetch: boolean })[] = [];
  readonly #options: SimNodeOptions;
  readonly #flights = new Map<number, Flight>();
  position: TreePosition | undefined;
  ref: PeerRef | undefined;

  constructor(id: string, options: SimNodeOptions = {}) {
    this.id = id;
    this.#options = options;
    this.identity = Identity.fromRing(options.ring ?? RING, { memberId: id, random: systemRandom });
    const shared = {
      selfId: id,
      identity: this.identity,
      positions: () => this.position,
      clock: systemClock,
      logger: silentLogger,
      ...(options.versions === undefined ? {} : { versions: options.versions }),
      waits: this.waits,
      counters: this.counters,
    };
    this.client = new ExchangeClient({
      ...shared,
      hedgeMs: options.hedgeMs ?? 8000,
      onConvicted: (peerId) => this.convicted.push(peerId),
      onTrouble: (_image, peerId, trouble) => this.troubles.push([peerId, trouble]),
    });
    this.server = new BlockServer({
      ...shared,
      blocks: this,
      maps: options.maps ?? {
        open: async () => {
          throw new DaemonError("not-found", "no map");
        },
      },
      orders: options.orders ?? { async *since() {} },
      views: async (records) => Buffer.concat([Buffer.from(`${id}:`), records]),
      documents: options.documents,
      shared: options.shared,
    });
    this.source = this.client.source(IMAGE, { id: LAYER, blobDigest: BLOB_DIGEST, table: TABLE });
  }

  async listen(): Promise<PeerRef> {
    const { host, port } = await this.server.listen({ host: "127.0.0.1", port: 0 });
    this.ref = refOf(this.id, host, port, this.#options.versions?.highest);
    return this.ref;
  }

  /** Reads blocks as the resolver would, verifying; wrong ones are reported. */
  async read(
    first: number,
    final = first,
    { priority = FETCH_PRIORITY.reader, signal = new AbortController().signal }: ReadOptions = {},
  ): Promise<Buffer> {
    const run = runOf(first, final);
    const bytes = await collect(await this.source.fetch(run, { signal, priority }));
    for (let index = first; index <= final; index += 1) {
      const start = (index - first) * BLOCK_BYTES;
      this.#verify(run, TABLE.at(index), bytes.subarray(start, start + BLOCK_BYTES));
    }
    return bytes;
  }

  #verify(run: BlobRun, block: Block, bytes: Buffer): void {
    if (createHash("sha256").update(bytes).digest().equals(block.blobSha256)) return;
    this.source.onBadBlock(run, block);
    throw new DaemonError("data-loss", `block ${block.index} is wrong`);
  }

  async open(
    want: WantedBlock,
    options: { readonly signal: AbortSignal; readonly priority: FetchPriority; mayFetch: boolean },
  ): Promise<ProvidedBlock | undefined> {
    this.wanted.push({ ...want, mayFetch: options.mayFetch });
    const length = want.end - want.start;
    const held = this.held.get(want.block);
    if (held !== undefined) {
      return { length, pieces: this.#tampered(want.block, [held]), verdict: Promise.resolve() };
    }
    let flight = this.#flights.get(want.block);
    if (flight === undefined) {
      if (!options.mayFetch && this.#options.isEager !== true) return undefined;
      flight = this.fetch(want.block);
    }
    const pieces = this.#tampered(want.block, flight.pieces());
    return { length, pieces, verdict: flight.verdict };
  }

  async *#tampered(
    index: number,
    pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): AsyncGenerator<Uint8Array> {
    let offset = 0;
    for await (const piece of pieces) {
      yield this.#options.tamper?.(index, offset, piece) ?? piece;
      offset += piece.length;
    }
  }

  /** Starts a block's flight, from the registry (the root's) or the tree, again when it was bad. */
  fetch(index: number): Flight {
    const flight = new Flight(BLOCK_BYTES);
    this.#flights.set(index, flight);
    void this.#fly(index, flight);
    return flight;
  }

  async #fly(index: number, flight: Flight): Promise<void> {
    const run = runOf(index);
    const { signal } = new AbortController();
    try {
      if (this.position?.isRoot !== false) this.registryReads.push(index);
      const pieces =
        this.position?.isRoot === false
          ? this.#fromTree(index, run, signal)
          : (this.#options.registry ?? plainRegistry)(index, signal);
      for await (const piece of pieces) if (piece.length > 0) flight.add(piece);
      this.#verify(run, TABLE.at(index), flight.bytes);
      this.held.set(index, flight.bytes);
      flight.finish();
    } catch (error) {
      flight.finish(error);
    }
    this.#flights.delete(index);
  }

  /** With a registry of its own a member reads it when the tree has not got the block. */
  async *#fromTree(index: number, run: BlobRun, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const { registry } = this.#options;
    try {
      yield* await this.source.fetch(run, { signal, priority: FETCH_PRIORITY.reader });
    } catch (error) {
      if (registry === undefined) throw error;
      this.registryReads.push(index);
      yield* registry(index, signal);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client[Symbol.dispose]();
    await this.server[Symbol.asyncDispose]();
  }
}

interface ReadOptions {
  readonly priority?: FetchPriority;
  readonly signal?: AbortSignal;
}

export function refOf(id: string, host: string, port: number, version = 1): PeerRef {
  const address = { host, port };
  return { id, boot: "0".repeat(32), address, exchangePort: port, zone: "", version };
}

/** Nodes, the first the root, each the parent of the next; ids `n0`, `n1`, … */
export async function chainOf(options: readonly SimNodeOptions[]): Promise<SimNode[]> {
  const nodes = options.map((each, index) => new SimNode(`n${index}`, each));
  const refs: PeerRef[] = [];
  for (const node of nodes) refs.push(await node.listen());
  place(nodes, refs);
  return nodes;
}

/** Gives everybody a position in the chain; `refs` may name other places than the nodes'. */
export function place(nodes: readonly SimNode[], refs: readonly PeerRef[]): void {
  const [root] = refs;
  if (root === undefined) throw new Error("no root");
  for (const [depth, node] of nodes.entries()) {
    node.position = {
      epoch: EPOCH,
      depth,
      parent: refs[depth - 1],
      grandparent: refs[depth - 2],
      root,
      isRoot: depth === 0,
    };
  }
}

export async function disposeAll(owners: readonly AsyncDisposable[]): Promise<void> {
  await Promise.all(owners.map(async (owner) => owner[Symbol.asyncDispose]()));
}

export function last<T>(items: readonly T[]): T {
  const item = items.at(-1);
  if (item === undefined) throw new Error("empty");
  return item;
}
