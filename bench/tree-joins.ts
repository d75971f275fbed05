/**
 * Joins per second of one tree manager: newcomers that it never saw, over sealed UDP, beside the
 * heartbeats of the members that it has.
 *
 *     node dist/bench/tree-joins.js [--quick] [--rate JOINS] [--beats HEARTBEATS] [--seconds N]
 *
 * The manager (socket, seal, codec, TreeAgent) is a process of its own; this one plays the
 * members. Open loop: packets are sent by the clock, whether or not answers come; a join's latency
 * runs from when it was due to its answer. Trees hold 1,000 members, then the next image begins.
 * Packets are sealed before the clock starts, so that the load costs little more than sending. The
 * manager's share of a core is measured beside: joins per second and core are what it does with a
 * whole one. A packet that the kernel drops is counted as not answered; a member would ask again
 * after 200 ms.
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
import {
  decodeTreeMessage,
  encodeTreeMessage,
  TREE_PRESETS,
  TreeAgent,
} from "../src/peer/tree/index.ts";
import type { PeerRef, TreeEffect } from "../src/peer/tree/index.ts";

const KEY = new KeyRing([new Uint8Array(32).fill(7)]);
const TREE_MEMBERS = 1000;
/** First byte of a packet's content. */
const TREE_PACKET = 2;
const HOST = "127.0.0.1";
const TICK_MS = 5;
/** Boots are numbers: of joins from 0, of answers' receivers, of the old tree's members. */
const INBOX_BOOTS = 2 ** 32;
const OLD_BOOTS = 2 ** 33;
const OLD_IMAGE = 2 ** 24;
/** One boot may join so often at once; heartbeats of the others are their joins. */
const SEATS_PLACED = 300;
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
  const socket = createSocket({ type: "udp4", recvBufferSize: 8 * 1024 * 1024 });
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

/** Where a member's answers arrive, and what opens them. */
interface Inbox {
  readonly socket: Socket;
  readonly sealer: Sealer;
  readonly boot: string;
  readonly port: number;
}

async function openInbox(number: number): Promise<Inbox> {
  const socket = await bind();
  const boot = bootOf(INBOX_BOOTS + number);
  return { socket, sealer: new Sealer(KEY, boot), boot, port: socket.address().port };
}

/** Packets that are sent by the clock. */
class Stream {
  readonly latenciesMs: number[] = [];
  sent = 0;
  #startMs = 0;
  readonly #rate: number;
  readonly #packets: Buffer[] = [];
  readonly #sockets: Socket[] = [];

  constructor(rate: number) {
    this.#rate = rate;
  }

  add(packet: Buffer, socket: Socket): void {
    this.#packets.push(packet);
    this.#sockets.push(socket);
  }

  /** Sends what is due. */
  send(startMs: number, port: number): void {
    this.#startMs = startMs;
    const due = ((systemClock.nowMs() - startMs) / 1000) * this.#rate;
    for (; this.sent < Math.min(due, this.#packets.length); this.sent += 1) {
      this.#sockets[this.sent]?.send(this.#packets[this.sent] ?? "", port, HOST);
    }
  }

  answered(number: number): void {
    this.latenciesMs.push(systemClock.nowMs() - this.#startMs - (number / this.#rate) * 1000);
  }
}

/** What a member says to the manager: a join, or with `isSeated` a heartbeat. */
function reportOf(image: number, slot: number, to: Inbox, isSeated: boolean): Buffer {
  const epoch = { counter: 1, manager: "manager" };
  const depth = 31 - Math.clz32(slot + 1);
  const seat = { slot, depth, size: TREE_MEMBERS, epoch, fingerprint: 0 };
  const report = encodeTreeMessage({
    kind: "report",
    image: imageOf(image),
    member: refOf(`member-${image}-${slot}.example`, to.boot, to.port),
    // By way of a seed: then who seals is not who is answered.
    hops: 1,
    rank: "manager",
    heldBlocks: 0,
    interior: 0,
    bytesPerSecond: 0,
    ...(isSeated ? { seat } : {}),
  });
  return Buffer.concat([Buffer.of(TREE_PACKET), report]);
}

/** Each join comes from a boot, and so is sealed with a key, that the manager has never seen. */
function makeJoins(inboxes: readonly Inbox[], { rate, seconds }: Load): Stream {
  const joins = new Stream(rate);
  for (let number = 0; number < rate * seconds; number += 1) {
    const slot = number % TREE_MEMBERS;
    const inbox = inboxes[slot];
    if (inbox === undefined) continue;
    const report = reportOf(Math.floor(number / TREE_MEMBERS), slot, inbox, false);
    const packet = new Sealer(KEY, bootOf(number)).seal(MANAGER_BOOT, report);
    joins.add(Buffer.from(packet), inbox.socket);
  }
  for (const [slot, { socket, sealer }] of inboxes.entries()) {
    socket.on("message", (packet) => {
      const opened = sealer.open(packet);
      if (opened.kind === "refused") return;
      const message = decodeTreeMessage(opened.content.subarray(1));
      if (message.kind !== "position") return;
      // An inbox asks for one place in each tree.
      const image = Number.parseInt(message.image.slice(-8), 16);
      joins.answered(image * TREE_MEMBERS + slot);
    });
  }
  return joins;
}

/** The members of a tree that is there already, and the heartbeats that they will send. */
async function makeHeartbeats(port: number, { beats, seconds }: Load): Promise<Stream> {
  const { signal } = new AbortController();
  const inbox = await openInbox(TREE_MEMBERS);
  const heartbeats = new Stream(beats);
  const sealers: Sealer[] = [];
  for (let slot = 0; slot < TREE_MEMBERS; slot += 1) {
    const sealer = new Sealer(KEY, bootOf(OLD_BOOTS + slot));
    const join = sealer.seal(MANAGER_BOOT, reportOf(OLD_IMAGE, slot, inbox, false));
    // Below what one boot may join per second.
    if (slot < SEATS_PLACED) inbox.socket.send(join, port, HOST);
    sealers.push(sealer);
    if (slot % 10 === 0) await systemClock.sleep(5, { signal });
  }
  await systemClock.sleep(1000, { signal });
  for (let number = 0; number < beats * seconds; number += 1) {
    const slot = number % TREE_MEMBERS;
    const report = reportOf(OLD_IMAGE, slot, inbox, true);
    const packet = sealers[slot]?.seal(MANAGER_BOOT, report);
    if (packet !== undefined) heartbeats.add(Buffer.from(packet), inbox.socket);
  }
  inbox.socket.on("message", () => {
    heartbeats.latenciesMs.push(0);
  });
  return heartbeats;
}

async function measure(load: Load): Promise<void> {
  const child = fork(fileURLToPath(import.meta.url), ["--manage"]);
  try {
    const [port] = (await once(child, "message")) as [number];
    const inboxes: Inbox[] = [];
    for (let slot = 0; slot < TREE_MEMBERS; slot += 1) inboxes.push(await openInbox(slot));
    const joins = makeJoins(inboxes, load);
    const heartbeats = await makeHeartbeats(port, load);
    const before = await usageOf(child);
    const startMs = systemClock.nowMs();
    while (systemClock.nowMs() - startMs < load.seconds * 1000) {
      joins.send(startMs, port);
      heartbeats.send(startMs, port);
      await new Promise((resolve) => setImmediate(resolve));
    }
    const { signal } = new AbortController();
    await systemClock.sleep(500, { signal });
    const after = await usageOf(child);
    const joined = after.joined - before.joined;
    print(load, { joins, heartbeats, cpuMs: after.cpuMs - before.cpuMs, joined, after });
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
  readonly joined: number;
  readonly after: Usage;
}

function print(load: Load, { joins, heartbeats, cpuMs, joined, after }: Measured): void {
  const share = cpuMs / (load.seconds * 1000);
  const at = (part: number): string => percentile(joins.latenciesMs, part).toFixed(2);
  console.log(`${load.rate} joins/s and ${load.beats} heartbeats/s for ${load.seconds} s`);
  console.log(
    `  joins: sent ${joins.sent}, answered ${joins.latenciesMs.length}, placed ${joined}`,
  );
  console.log(`  heartbeats: sent ${heartbeats.sent}, answered ${heartbeats.latenciesMs.length}`);
  console.log(`  latency of a join, ms: p50 ${at(0.5)}, p99 ${at(0.99)}, max ${at(1)}`);
  const perCore = Math.round((joined / cpuMs) * 1000);
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
  process.exit();
}

await main();
