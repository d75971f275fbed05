/**
 * What a node costs that passes blocks on: MB received for each second of CPU time of its whole
 * process, while it verifies them, writes them to a cache file and sends them to two children.
 *
 *     node dist/bench/peer-relay.js [--quick] [--seconds N] [--clear | --tls] [--children N]
 *                                   [--link MBIT]
 *
 * Processes: an origin that holds everything, the relay (measured), and a process for each child.
 * Beside it: how long a 64 KiB read for a waiting reader takes while bulk is saturated. With
 * `--link 200` one child alone, in a network namespace behind a link of 200 Mbit/s (needs root).
 * One line of JSON for each transport.
 */
import { execFileSync, fork } from "node:child_process";
import type { ChildProcess, ForkOptions } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, open, rm } from "node:fs/promises";
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
import { FETCH_PRIORITY } from "../src/block/index.ts";
import {
  BlockServer,
  ExchangeClient,
  ExchangeCounters,
  WaitBook,
} from "../src/peer/exchange/index.ts";
import type { BlockProvider, TreePosition, TreeSource } from "../src/peer/exchange/index.ts";
import type { PeerRef } from "../src/peer/peer-ref.ts";
import { Identity } from "../src/peer/transport/identity.ts";

import {
  RUN_BLOCKS,
  RUNS_AT_ONCE,
  HEAP_MIB,
  WARM_BYTES,
  WARM_ROUNDS_MAX,
  IMAGE,
  EPOCH,
  RING,
  LAYERS,
  contentOf,
  tableOf,
  runOf,
  Origin,
  Relay,
} from "../test/support/peer/relay-nodes.ts";
import type { LayerName, Order } from "../test/support/peer/relay-nodes.ts";

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

const LINK = { host: "10.213.77.1", child: "10.213.77.2", name: `fnb${process.pid % 100_000}` };

/** A namespace whose only link has the rate in Mbit/s towards it; the result removes it. */
function makeLink(mbit: number): () => void {
  const { host, child, name } = LINK;
  const ip = (...words: string[]): void => {
    execFileSync("ip", words, { stdio: "pipe" });
  };
  ip("netns", "add", name);
  const remove = (): void => {
    ip("netns", "del", name);
  };
  try {
    ip("link", "add", `${name}a`, "type", "veth", "peer", "name", `${name}b`, "netns", name);
    ip("addr", "add", `${host}/30`, "dev", `${name}a`);
    ip("link", "set", `${name}a`, "up");
    ip("-n", name, "addr", "add", `${child}/30`, "dev", `${name}b`);
    ip("-n", name, "link", "set", `${name}b`, "up");
    const shape = ["rate", `${mbit}mbit`, "burst", "64k", "latency", "20ms"];
    execFileSync("tc", ["qdisc", "add", "dev", `${name}a`, "root", "tbf", ...shape]);
  } catch (error) {
    remove();
    throw error;
  }
  return remove;
}

function start(order: Order): ChildProcess {
  // A heap that starts small is collected every few megabytes of network buffers (16 KiB of TLS
  // each), which took a third of the relay's time. Meant for the image service as well.
  const execArgv = [`--initial-old-space-size=${HEAP_MIB}`];
  const isBehindLink = order.host === LINK.host && order.role === "child";
  const options: ForkOptions = { stdio: "inherit", execArgv };
  if (isBehindLink) {
    options.execPath = "ip";
    options.execArgv = ["netns", "exec", LINK.name, process.execPath, ...execArgv];
  }
  return fork(fileURLToPath(import.meta.url), [JSON.stringify(order)], options);
}

interface Settings {
  readonly seconds: number;
  readonly children: number;
  readonly isTls: boolean;
  readonly host: string;
}

async function measure(settings: Settings): Promise<Record<string, unknown>> {
  const { seconds, children, isTls, host } = settings;
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
  const mbit = value("--link", 0);
  const removeLink = mbit === 0 ? undefined : makeLink(mbit);
  const place = mbit === 0 ? { host: "127.0.0.1", children } : { host: LINK.host, children: 1 };
  try {
    for (const isTls of kinds) {
      const result = await measure({ seconds, isTls, ...place });
      console.log(JSON.stringify(mbit === 0 ? result : { linkMbit: mbit, ...result }));
    }
  } finally {
    removeLink?.();
  }
}

await main();
