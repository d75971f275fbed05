/**
 * What a node costs that passes blocks on: MB received for each second of CPU time of its whole
 * process, while it verifies them, writes them to a cache file and sends them to two children.
 *
 *     node dist/bench/peer-relay.js [--seconds N] [--clear | --tls] [--children N] [--json]
 *                                   [--host ADDRESS] [--link NAMESPACE]
 *
 * Processes: an origin that holds everything, the relay (measured), and a process for each child.
 * Beside it: how long a 64 KiB read for a waiting reader takes while bulk is saturated. With
 * `--link mbit` the children run in a network namespace of their own behind a link of that rate.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { systemClock } from "../src/base/clock.ts";
import { DaemonError } from "../src/base/errors.ts";
import { silentLogger } from "../src/base/log.ts";
import { systemRandom } from "../src/base/random.ts";
import { BlockTable, BlockTableBuilder, FETCH_PRIORITY } from "../src/block/index.ts";
import type { BlobRun, FetchPriority } from "../src/block/index.ts";
import { parseDigest } from "../src/oci/index.ts";
import {
  BlockServer,
  ExchangeClient,
  ExchangeCounters,
  WaitBook,
} from "../src/peer/exchange/index.ts";
import type {
  BlockProvider,
  ProvidedBlock,
  TreePosition,
  TreeSource,
  WantedBlock,
} from "../src/peer/exchange/index.ts";
import type { PeerRef } from "../src/peer/peer-ref.ts";
import { Identity } from "../src/peer/transport/identity.ts";
import { KeyRing } from "../src/peer/transport/key-ring.ts";

const MIB = 1024 * 1024;
const RUN_BLOCKS = 8;
/** Runs that a child has under way, as the two bulk connections of design.md 7. */
const RUNS_AT_ONCE = 2;
const BLOCKS = 65_536;
const KEPT_BLOCKS = 96;
const CACHE_BYTES = 256 * MIB;
const WARM_BYTES = 300 * MIB;
const WARM_ROUNDS_MAX = 60;
const IMAGE = parseDigest(`sha256:${"1a".repeat(32)}`);
const EPOCH = { counter: 1, manager: "m" };
const RING = new KeyRing([Buffer.alloc(32, 9)]);

/** Two layers: large blocks for bulk, small ones for a reader that waits. */
const LAYERS = {
  bulk: { id: "2b".repeat(32), digest: parseDigest(`sha256:${"3c".repeat(32)}`), bytes: MIB },
  small: { id: "4d".repeat(32), digest: parseDigest(`sha256:${"5e".repeat(32)}`), bytes: 65_536 },
} as const;
type LayerName = keyof typeof LAYERS;

interface Order {
  readonly role: "origin" | "relay" | "child";
  readonly isTls: boolean;
  readonly host: string;
  readonly parent?: PeerRef;
  readonly id: string;
  readonly seconds: number;
  readonly first: number;
}

/** What each block of a layer holds; the same in all of them. */
function contentOf(name: LayerName): Buffer {
  const content = Buffer.alloc(LAYERS[name].bytes);
  let state = name.length;
  for (let at = 0; at < content.length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    content.writeUInt32LE(state, at);
  }
  return content;
}

function tableOf(name: LayerName, sha256: Uint8Array): BlockTable {
  const { bytes } = LAYERS[name];
  const builder = new BlockTableBuilder();
  for (let index = 0; index < BLOCKS; index += 1) {
    builder.add({
      tarOffset: index * bytes,
      tarLength: bytes,
      blobOffset: index * bytes,
      blobLength: bytes,
      codec: "none",
      startBits: 0,
      atMemberStart: false,
      windowOffset: 0,
      windowLength: 0,
      blobSha256: sha256,
      tarSha256: sha256,
    });
  }
  return BlockTable.parse(builder.finish(), { blobBytes: BLOCKS * bytes });
}

function runOf(name: LayerName, first: number, count: number): BlobRun {
  const { id, digest, bytes } = LAYERS[name];
  return {
    layerId: id,
    blobDigest: digest,
    blobBytes: BLOCKS * bytes,
    range: { start: first * bytes, end: (first + count) * bytes },
    firstBlock: first,
    lastBlock: first + count - 1,
  };
}

/** Holds every block. */
class Origin implements BlockProvider {
  readonly #contents = { bulk: contentOf("bulk"), small: contentOf("small") };

  async open(want: WantedBlock): Promise<ProvidedBlock | undefined> {
    const content = this.#contents[want.layerId === LAYERS.bulk.id ? "bulk" : "small"];
    const pieces = (async function* () {
      for (let at = 0; at < content.length; at += 131_072) {
        yield content.subarray(at, at + 131_072);
      }
    })();
    return { length: content.length, pieces, verdict: Promise.resolve() };
  }
}

interface Flight {
  readonly bytes: Buffer;
  length: number;
  wake: (() => void)[];
  readonly verdict: Promise<void>;
  readonly settle: (error?: unknown) => void;
}

function newFlight(bytes: number): Flight {
  let settle: (error?: unknown) => void = () => undefined;
  const verdict = new Promise<void>((resolve, reject) => {
    settle = (error) => {
      if (error === undefined) resolve();
      else reject(error instanceof Error ? error : new Error("lost"));
    };
  });
  verdict.catch(() => undefined);
  return { bytes: Buffer.allocUnsafeSlow(bytes), length: 0, wake: [], verdict, settle };
}

/** Fetches what its children want, a run at a time: verifies, writes, and lets them follow. */
class Relay implements BlockProvider {
  readonly #sources: Readonly<Record<LayerName, TreeSource>>;
  readonly #sha256: Readonly<Record<LayerName, Buffer>>;
  readonly #flights = new Map<string, Flight>();
  readonly #file: FileHandle;
  #position = 0;
  bytesIn = 0;

  constructor(
    sources: Readonly<Record<LayerName, TreeSource>>,
    sha256: Readonly<Record<LayerName, Buffer>>,
    file: FileHandle,
  ) {
    this.#sources = sources;
    this.#sha256 = sha256;
    this.#file = file;
  }

  async open(
    want: WantedBlock,
    { priority }: { readonly priority: FetchPriority },
  ): Promise<ProvidedBlock | undefined> {
    const name = want.layerId === LAYERS.bulk.id ? "bulk" : "small";
    const key = `${name} ${want.block}`;
    if (!this.#flights.has(key)) this.#launch(name, want.block, priority);
    const flight = this.#flights.get(key);
    if (flight === undefined) return undefined;
    return { length: flight.bytes.length, pieces: follow(flight), verdict: flight.verdict };
  }

  #launch(name: LayerName, block: number, priority: FetchPriority): void {
    const count = name === "bulk" ? RUN_BLOCKS : 1;
    const first = block - (block % count);
    const flights: Flight[] = [];
    for (let index = first; index < first + count; index += 1) {
      const flight = newFlight(LAYERS[name].bytes);
      flights.push(flight);
      this.#flights.set(`${name} ${index}`, flight);
    }
    for (const key of this.#flights.keys()) {
      if (this.#flights.size <= KEPT_BLOCKS) break;
      this.#flights.delete(key);
    }
    void this.#fly(name, runOf(name, first, count), { flights, priority });
  }

  async #fly(
    name: LayerName,
    run: BlobRun,
    {
      flights,
      priority,
    }: { readonly flights: readonly Flight[]; readonly priority: FetchPriority },
  ): Promise<void> {
    const { signal } = new AbortController();
    let at = 0;
    try {
      for await (const piece of await this.#sources[name].fetch(run, { signal, priority })) {
        this.bytesIn += piece.length;
        for (let offset = 0; offset < piece.length;) {
          const flight = flights[at];
          if (flight === undefined) throw new Error("too much");
          const part = piece.subarray(offset, offset + flight.bytes.length - flight.length);
          flight.bytes.set(part, flight.length);
          flight.length += part.length;
          offset += part.length;
          for (const wake of flight.wake.splice(0)) wake();
          if (flight.length < flight.bytes.length) continue;
          at += 1;
          this.#finish(name, flight);
        }
      }
    } catch (error) {
      for (const flight of flights.slice(at)) flight.settle(error);
    }
  }

  #finish(name: LayerName, flight: Flight): void {
    const digest = createHash("sha256").update(flight.bytes).digest();
    if (!digest.equals(this.#sha256[name])) {
      flight.settle(new DaemonError("data-loss", "wrong bytes"));
      return;
    }
    flight.settle();
    void this.#file.write(flight.bytes, 0, flight.bytes.length, this.#position);
    this.#position = (this.#position + flight.bytes.length) % CACHE_BYTES;
  }
}

async function* follow(flight: Flight): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < flight.bytes.length;) {
    if (at < flight.length) {
      const from = at;
      at = flight.length;
      yield flight.bytes.subarray(from, at);
    } else {
      await new Promise<void>((resolve) => flight.wake.push(resolve));
    }
  }
}

class Node {
  readonly identity: Identity | undefined;
  readonly client: ExchangeClient;
  readonly counters = new ExchangeCounters();
  readonly waits = new WaitBook();
  readonly position: TreePosition;
  readonly #order: Order;

  constructor(order: Order) {
    this.#order = order;
    const { id, isTls, parent } = order;
    this.identity = isTls
      ? Identity.fromRing(RING, { memberId: id, random: systemRandom })
      : undefined;
    const root = parent ?? refOf(id, order.host, 0);
    this.position = { epoch: EPOCH, depth: 1, parent, root, isRoot: order.role !== "child" };
    if (order.role === "relay") this.position = { ...this.position, isRoot: false };
    this.client = new ExchangeClient({ ...this.#shared, hedgeMs: 5000 });
  }

  get #shared() {
    const { identity, counters, waits } = this;
    const selfId = this.#order.id;
    const positions = (): TreePosition => this.position;
    return {
      selfId,
      identity,
      positions,
      clock: systemClock,
      logger: silentLogger,
      waits,
      counters,
    };
  }

  sources(sha256: Readonly<Record<LayerName, Buffer>>): Readonly<Record<LayerName, TreeSource>> {
    const make = (name: LayerName): TreeSource => {
      const { id, digest } = LAYERS[name];
      const table = tableOf(name, sha256[name]);
      return this.client.source(IMAGE, { id, blobDigest: digest, table });
    };
    return { bulk: make("bulk"), small: make("small") };
  }

  async serve(blocks: BlockProvider): Promise<PeerRef> {
    const server = new BlockServer({
      ...this.#shared,
      blocks,
      maps: {
        open: async () => {
          throw new DaemonError("not-found", "none");
        },
      },
      orders: { async *since() {} },
      views: async (records) => records,
    });
    const { host, id } = this.#order;
    if (this.identity !== undefined) {
      const address = await server.listen({ host, port: 0 });
      return refOf(id, host, address.port);
    }
    // Without TLS nobody has a name; here everybody is believed.
    const clear = createServer((request, response) => {
      const asker = { kind: "member", ids: ["c0", "c1", "c2", "c3", "relay"] } as const;
      const controller = new AbortController();
      void server.handleMember(request, response, { peer: asker, signal: controller.signal });
    });
    await new Promise<void>((resolve) => clear.listen(0, host, resolve));
    return refOf(id, host, (clear.address() as AddressInfo).port);
  }
}

function refOf(id: string, host: string, port: number): PeerRef {
  const address = { host, port };
  return { id, boot: "0".repeat(32), address, exchangePort: port, zone: "", version: 1 };
}

function digests(): Readonly<Record<LayerName, Buffer>> {
  const of = (name: LayerName): Buffer => createHash("sha256").update(contentOf(name)).digest();
  return { bulk: of("bulk"), small: of("small") };
}

async function runOrigin(order: Order): Promise<void> {
  process.send?.({ ref: await new Node(order).serve(new Origin()) });
}

async function runRelay(order: Order): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "peer-relay-"));
  const file = await open(join(folder, "cache"), "w");
  const sha256 = digests();
  const node = new Node(order);
  const relay = new Relay(node.sources(sha256), sha256, file);
  const ref = await node.serve(relay);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  process.on("message", (message) => {
    if (message === "stop") {
      void rm(folder, { recursive: true, force: true }).then(() => process.exit(0));
      return;
    }
    const { user, system } = process.cpuUsage();
    process.send?.({
      stat: {
        cpuSeconds: (user + system) / 1e6,
        bytesIn: relay.bytesIn,
        bytesOut: node.counters.total.bytesOut,
        loopP99Ms: delay.percentile(99) / 1e6,
        rssMb: process.memoryUsage().rss / 1e6,
        fellBehind: node.counters.total.fellBehind,
        cutOff: node.counters.total.cutOff,
        timesMs: systemClock.nowMs(),
      },
    });
    delay.reset();
  });
  process.send?.({ ref });
}

/** Takes run after run, and (the first child) a small block for a reader now and then. */
async function runChild(order: Order): Promise<void> {
  const node = new Node(order);
  const sources = node.sources(digests());
  let position = order.first;
  let isOver = false;
  const { signal } = new AbortController();
  const bulk = async (): Promise<void> => {
    while (!isOver) {
      const run = runOf("bulk", position, RUN_BLOCKS);
      position += RUN_BLOCKS;
      const pieces = await sources.bulk.fetch(run, { signal, priority: FETCH_PRIORITY.prefetch });
      await drain(pieces);
    }
  };
  const waits: number[] = [];
  const reads = async (): Promise<void> => {
    for (let block = order.first; !isOver; block += 1) {
      const startMs = systemClock.nowMs();
      const run = runOf("small", block, 1);
      const pieces = await sources.small.fetch(run, { signal, priority: FETCH_PRIORITY.reader });
      await drain(pieces);
      waits.push(systemClock.nowMs() - startMs);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  process.on("message", () => {
    isOver = true;
    process.send?.({ waits });
    setTimeout(() => process.exit(0), 50);
  });
  const jobs = Array.from({ length: RUNS_AT_ONCE }, bulk);
  if (order.id === "c0") jobs.push(reads());
  await Promise.all(jobs).catch((error: unknown) => {
    if (!isOver) console.error(order.id, error);
  });
}

async function drain(pieces: AsyncIterable<Uint8Array>): Promise<void> {
  const iterator = pieces[Symbol.asyncIterator]();
  while ((await iterator.next()).done !== true) continue;
}

interface Stat {
  readonly cpuSeconds: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly loopP99Ms: number;
  readonly rssMb: number;
  readonly fellBehind: number;
  readonly cutOff: number;
  readonly timesMs: number;
}

async function ask<T>(child: ChildProcess, message: string, field: string): Promise<T> {
  const answer = next<T>(child, field);
  child.send(message);
  return answer;
}

async function next<T>(child: ChildProcess, field: string): Promise<T> {
  return new Promise<T>((resolve) => {
    const listener = (message: unknown): void => {
      const value = (message as Record<string, T>)[field];
      if (value === undefined) return;
      child.off("message", listener);
      resolve(value);
    };
    child.on("message", listener);
  });
}

/** Gone, if need be by force. */
async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
  await new Promise((resolve) => child.once("exit", resolve));
  clearTimeout(timer);
}

function start(order: Order): ChildProcess {
  return fork(fileURLToPath(import.meta.url), [JSON.stringify(order)], { stdio: "inherit" });
}

interface Settings {
  readonly seconds: number;
  readonly children: number;
  readonly isTls: boolean;
}

async function measure({ seconds, children, isTls }: Settings): Promise<Record<string, unknown>> {
  const host = "127.0.0.1";
  const common = { isTls, host, seconds, first: 0 };
  const processes: ChildProcess[] = [];
  const begin = (order: Order): ChildProcess => {
    const child = start(order);
    processes.push(child);
    return child;
  };
  try {
    const origin = await next<PeerRef>(begin({ ...common, role: "origin", id: "origin" }), "ref");
    const relay = begin({ ...common, role: "relay", id: "relay", parent: origin });
    const parent = await next<PeerRef>(relay, "ref");
    const kids = Array.from({ length: children }, (_, index) =>
      begin({ ...common, role: "child", id: `c${index}`, parent }),
    );
    // Warm is what counts, and on a busy machine time alone warms nothing.
    for (let round = 0; round < WARM_ROUNDS_MAX; round += 1) {
      await new Promise((resolve) => setTimeout(resolve, 500));
      if ((await ask<Stat>(relay, "stat", "stat")).bytesIn >= WARM_BYTES) break;
    }
    const before = await ask<Stat>(relay, "stat", "stat");
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    const after = await ask<Stat>(relay, "stat", "stat");
    const [first] = kids;
    const waits = first === undefined ? [] : await ask<number[]>(first, "stop", "waits");
    for (const kid of kids.slice(1)) kid.send("stop");
    relay.send("stop");
    return report({ isTls, before, after, waits });
  } finally {
    for (const child of processes.slice(1)) await ended(child);
    processes[0]?.kill();
  }
}

function report(run: {
  readonly isTls: boolean;
  readonly before: Stat;
  readonly after: Stat;
  readonly waits: readonly number[];
}): Record<string, unknown> {
  const { before, after, isTls } = run;
  const waits = [...run.waits].sort((a, b) => a - b);
  const cpu = after.cpuSeconds - before.cpuSeconds;
  const wall = (after.timesMs - before.timesMs) / 1000;
  const round = (value: number): number => Math.round(value * 10) / 10;
  const perCpu = (bytes: number): number => Math.round(bytes / cpu / 1e6);
  return {
    transport: isTls ? "tls" : "clear",
    inMbPerCpuSecond: perCpu(after.bytesIn - before.bytesIn),
    outMbPerCpuSecond: perCpu(after.bytesOut - before.bytesOut),
    wallMbPerSecondIn: Math.round((after.bytesIn - before.bytesIn) / wall / 1e6),
    cpuShare: round(cpu / wall),
    loopP99Ms: round(after.loopP99Ms),
    rssMb: Math.round(after.rssMb),
    fellBehind: after.fellBehind - before.fellBehind,
    cutOff: after.cutOff - before.cutOff,
    demand64KiBMs: {
      reads: waits.length,
      p50: round(waits[Math.floor(waits.length / 2)] ?? Number.NaN),
      p99: round(waits[Math.floor(waits.length * 0.99)] ?? Number.NaN),
    },
  };
}

async function main(): Promise<void> {
  const [argument = ""] = process.argv.slice(2);
  if (argument.startsWith("{")) {
    const order = JSON.parse(argument) as Order;
    if (order.role === "origin") await runOrigin(order);
    else if (order.role === "relay") await runRelay(order);
    else await runChild(order);
    return;
  }
  const value = (name: string, otherwise: number): number => {
    const at = process.argv.indexOf(name);
    return at < 0 ? otherwise : Number(process.argv[at + 1]);
  };
  const seconds = value("--seconds", process.argv.includes("--quick") ? 4 : 10);
  const children = value("--children", 2);
  const kinds = process.argv.includes("--clear")
    ? [false]
    : process.argv.includes("--tls")
      ? [true]
      : [true, false];
  for (const isTls of kinds) {
    console.log(JSON.stringify(await measure({ seconds, children, isTls })));
  }
}

await main();
