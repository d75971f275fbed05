/**
 * Joins per second of one tree manager: newcomers that it never saw, over sealed UDP, beside the
 * heartbeats of the members that it has.
 *
 *     node dist/bench/tree-joins.js [--quick] [--rate JOINS] [--beats HEARTBEATS] [--seconds N]
 *
 * The manager (socket, seal, codec, TreeAgent) is a process of its own; this one plays the members.
 * Open loop: packets are sent by the clock, whether or not answers come; a join's latency runs from
 * when it was due to its answer. Trees hold 1,000 members, then the next image begins. Packets are
 * sealed before the clock starts, so that the load costs little more than sending. Answers come in
 * the order of the joins; every hundredth is opened, which fails when that is not so. The manager's
 * share of a core is measured beside: joins per second and core are what it does with a whole one.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createSocket } from "node:dgram";
import type { Socket } from "node:dgram";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { systemClock } from "../src/base/clock.ts";
import { systemRandom } from "../src/base/random.ts";
import { KeyRing } from "../src/peer/transport/key-ring.ts";
import { Sealer } from "../src/peer/transport/seal.ts";
import { encodeTreeMessage, TREE_PRESETS, TreeAgent } from "../src/peer/tree/index.ts";
import type { PeerRef, TreeEffect } from "../src/peer/tree/index.ts";

const KEY = new KeyRing([new Uint8Array(32).fill(7)]);
const TREE_MEMBERS = 1000;
/** First byte of a packet's content. */
const TREE_PACKET = 2;
const BUFFER_BYTES = 8 * 1024 * 1024;
const HOST = "127.0.0.1";
const TICK_MS = 5;
const MANAGER_BOOT = "f".repeat(32);

interface Load {
  readonly rate: number;
  readonly beats: number;
  readonly seconds: number;
}

interface Usage {
  readonly joined: number;
  readonly cpuMs: number;
  readonly rssBytes: number;
}

function imageOf(number: number): string {
  return `sha256:${number.toString(16).padStart(64, "0")}`;
}

function bootOf(number: number): string {
  return (number + 1).toString(16).padStart(32, "0");
}

function refOf(id: string, boot: string, port: number): PeerRef {
  return { id, boot, address: { host: HOST, port }, exchangePort: 1, zone: "", version: 1 };
}

async function bind(): Promise<Socket> {
  const socket = createSocket({
    type: "udp4",
    recvBufferSize: BUFFER_BYTES,
    sendBufferSize: BUFFER_BYTES,
  });
  socket.bind(0, HOST);
  await once(socket, "listening");
  return socket;
}

/** The process that is measured. */
async function manage(): Promise<void> {
  const socket = await bind();
  const sealer = new Sealer(KEY, MANAGER_BOOT);
  const self = refOf("manager", MANAGER_BOOT, socket.address().port);
  const startMs = systemClock.nowMs();
  const agent = new TreeAgent({
    // Newcomers send one join here and no heartbeats; nobody is to be looked for meanwhile.
    config: { ...TREE_PRESETS.lan, memberTimeoutMs: 600_000 },
    self,
    random: systemRandom,
    // Up for long: it listens for no earlier members.
    nowMs: startMs - 3_600_000,
  });
  let joined = 0;
  const handle = (effects: readonly TreeEffect[]): void => {
    for (const effect of effects) {
      if (effect.kind === "event" && effect.event.kind === "joined") joined += 1;
      if (effect.kind !== "send") continue;
      const content = Buffer.concat([Buffer.of(TREE_PACKET), effect.content]);
      const { host, port } = effect.to.address;
      socket.send(sealer.seal(effect.to.boot, content), port, host);
    }
  };
  const member = { ...self, state: "alive" as const, aliveSinceMs: -Infinity, isSeed: true };
  handle(agent.step({ kind: "members", list: [member] }, startMs));
  socket.on("message", (packet, { port }) => {
    const opened = sealer.open(packet);
    if (opened.kind === "refused") return;
    const { sender } = opened;
    const content = opened.content.subarray(1);
    const from = { address: { host: HOST, port } };
    handle(agent.step({ kind: "packet", from, sender, content }, systemClock.nowMs()));
  });
  const tick = (): void => {
    const nowMs = systemClock.nowMs();
    if (agent.nextMs <= nowMs) handle(agent.step({ kind: "tick" }, nowMs));
    systemClock.timer(TICK_MS, tick);
  };
  tick();
  process.on("message", () => {
    const { user, system } = process.cpuUsage();
    process.send?.({ joined, cpuMs: (user + system) / 1000, rssBytes: process.memoryUsage().rss });
  });
  process.send?.(socket.address().port);
}

/** Joins or heartbeats: what is sent when, and when the answer came. */
class Stream {
  readonly latenciesMs: number[] = [];
  answered = 0;
  sent = 0;
  readonly #socket: Socket;
  readonly #port: number;
  readonly #rate: number;
  readonly #fromMs: number;
  readonly #packets: Buffer[] = [];
  readonly #boots: string[] = [];

  constructor(socket: Socket, { port, rate, fromMs }: StreamOptions) {
    this.#socket = socket;
    this.#port = port;
    this.#rate = rate;
    this.#fromMs = fromMs;
    socket.on("message", (packet) => {
      this.#answer(packet);
    });
  }

  add(packet: Buffer, boot: string): void {
    this.#packets.push(packet);
    this.#boots.push(boot);
  }

  get count(): number {
    return this.#packets.length;
  }

  /** Sends what is due. */
  send(startMs: number): void {
    const due = ((systemClock.nowMs() - startMs - this.#fromMs) / 1000) * this.#rate;
    for (; this.sent < Math.min(due, this.#packets.length); this.sent += 1) {
      this.#socket.send(this.#packets[this.sent] ?? "", this.#port, HOST);
    }
    this.#startMs = startMs;
  }

  #startMs = 0;

  #answer(packet: Buffer): void {
    const dueMs = this.#startMs + this.#fromMs + (this.answered / this.#rate) * 1000;
    this.latenciesMs.push(systemClock.nowMs() - dueMs);
    if (this.answered % 100 === 0) {
      const opened = new Sealer(KEY, this.#boots[this.answered] ?? "").open(packet);
      if (opened.kind === "refused") throw new Error(`answer ${this.answered} is another's`);
    }
    this.answered += 1;
  }
}

interface StreamOptions {
  readonly port: number;
  readonly rate: number;
  /** When it begins, ms after the start. */
  readonly fromMs: number;
}

/** The wire form of a join, or of a heartbeat, of member `number`. */
function reportOf(number: number, port: number, isSeated: boolean): Buffer {
  const slot = number % TREE_MEMBERS;
  const epoch = { counter: 1, manager: "manager" };
  const depth = 31 - Math.clz32(slot + 1);
  const seat = { slot, depth, size: TREE_MEMBERS, epoch, fingerprint: 0 };
  const report = encodeTreeMessage({
    kind: "report",
    image: imageOf(Math.floor(number / TREE_MEMBERS)),
    member: refOf(`member-${number}.example`, bootOf(number), port),
    hops: 0,
    rank: "manager",
    heldBlocks: 0,
    interior: 0,
    bytesPerSecond: 0,
    ...(isSeated ? { seat } : {}),
  });
  return Buffer.concat([Buffer.of(TREE_PACKET), report]);
}

async function measure(load: Load): Promise<void> {
  const { rate, beats, seconds } = load;
  const child = fork(fileURLToPath(import.meta.url), ["--manage"]);
  try {
    const [port] = (await once(child, "message")) as [number];
    const [joinSocket, beatSocket] = [await bind(), await bind()];
    const joins = new Stream(joinSocket, { port, rate, fromMs: 0 });
    // Those who send heartbeats have joined in the first second.
    const heartbeats = new Stream(beatSocket, { port, rate: beats, fromMs: 1000 });
    const sealers = Array.from({ length: rate * seconds }, (_, number) => {
      const sealer = new Sealer(KEY, bootOf(number));
      const report = reportOf(number, joinSocket.address().port, false);
      joins.add(Buffer.from(sealer.seal(MANAGER_BOOT, report)), bootOf(number));
      return sealer;
    });
    for (let number = 0; number < beats * (seconds - 1); number += 1) {
      const member = number % Math.min(TREE_MEMBERS, sealers.length);
      const report = reportOf(member, beatSocket.address().port, true);
      const packet = sealers[member]?.seal(MANAGER_BOOT, report);
      if (packet !== undefined) heartbeats.add(Buffer.from(packet), bootOf(member));
    }
    const before = await usageOf(child);
    const startMs = systemClock.nowMs();
    while (systemClock.nowMs() - startMs < seconds * 1000) {
      joins.send(startMs);
      heartbeats.send(startMs);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const { signal } = new AbortController();
    await systemClock.sleep(500, { signal });
    const after = await usageOf(child);
    print(load, { joins, heartbeats, cpuMs: after.cpuMs - before.cpuMs, after });
    joinSocket.close();
    beatSocket.close();
  } finally {
    child.kill();
  }
}

async function usageOf(child: ChildProcess): Promise<Usage> {
  child.send("usage");
  const [usage] = (await once(child, "message")) as [Usage];
  return usage;
}

interface Measured {
  readonly joins: Stream;
  readonly heartbeats: Stream;
  readonly cpuMs: number;
  readonly after: Usage;
}

function print(load: Load, { joins, heartbeats, cpuMs, after }: Measured): void {
  const share = cpuMs / (load.seconds * 1000);
  const at = (part: number): string => percentile(joins.latenciesMs, part).toFixed(2);
  console.log(`${load.rate} joins/s and ${load.beats} heartbeats/s for ${load.seconds} s`);
  console.log(`  joins: sent ${joins.sent}, answered ${joins.answered}, placed ${after.joined}`);
  console.log(`  heartbeats: sent ${heartbeats.sent}, answered ${heartbeats.answered}`);
  console.log(`  latency of a join, ms: p50 ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)}`);
  const perCore = Math.round((after.joined / cpuMs) * 1000);
  console.log(`  manager: ${(100 * share).toFixed(0)} % of a core, ${perCore} joins/s per core`);
  console.log(`  manager: ${Math.round(after.rssBytes / 1e6)} MB resident`);
}

function percentile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      manage: { type: "boolean", default: false },
      quick: { type: "boolean", default: false },
      rate: { type: "string", default: "10000" },
      beats: { type: "string", default: "1000" },
      seconds: { type: "string" },
    },
  });
  if (values.manage) {
    await manage();
    return;
  }
  const seconds = Number(values.seconds ?? (values.quick ? 2 : 5));
  await measure({ rate: Number(values.rate), beats: Number(values.beats), seconds });
}

await main();
