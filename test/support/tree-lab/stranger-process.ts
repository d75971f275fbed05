/**
 * Somebody without the cluster's key who reaches its nodes' ports, for a while, in every way that
 * we know. Runs in a network namespace of its own:
 *
 *     node stranger-process.js PLAN.json      prints a StrangerResult as JSON at its end
 */
import { randomBytes, randomInt } from "node:crypto";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { Agent, request as httpsRequest } from "node:https";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import type { SecureVersion } from "node:tls";
import { systemRandom } from "../../../src/base/random.ts";
import { encodeGreeting } from "../../../src/peer/transport/greeting-codec.ts";
import { Identity } from "../../../src/peer/transport/identity.ts";
import { KeyRing } from "../../../src/peer/transport/key-ring.ts";
import { Sealer } from "../../../src/peer/transport/seal.ts";
import type { StrangerPlan, StrangerResult, StrangerTarget } from "./stranger.ts";

const ASK_TIMEOUT_MS = 3000;
const IDLE_CONNECTIONS = 500;
const UDP_BYTES_MAX = 65_507;
/** Packets in one go, to all nodes together, and the pause after them. */
const PACKETS_AT_ONCE = 100;
const PACKETS_PAUSE_MS = 50;

const plan = JSON.parse(readFileSync(process.argv[2] ?? "", "utf8")) as StrangerPlan;
const samples = plan.packets.map((text) => Buffer.from(text, "base64"));
const untilMs = performance.now() + plan.seconds * 1000;
const attempts: Record<string, number> = {};
const answered: string[] = [];
const udp = { sentBytes: 0, receivedBytes: 0, received: 0, marked: 0 };

function isOver(): boolean {
  return performance.now() > untilMs;
}

function count(kind: string): void {
  attempts[kind] = (attempts[kind] ?? 0) + 1;
}

function pick<T>(all: readonly T[]): T {
  const one = all[randomInt(all.length)];
  if (one === undefined) throw new Error("nothing to pick from");
  return one;
}

interface Credentials {
  readonly name: string;
  readonly cert?: string;
  readonly key?: string;
  readonly maxVersion?: SecureVersion;
}

const otherRing = new KeyRing([randomBytes(32)]);
const otherCluster = Identity.fromRing(otherRing, { memberId: plan.member, random: systemRandom });
const CREDENTIALS: readonly Credentials[] = [
  { name: "no certificate" },
  { name: "TLS 1.2", maxVersion: "TLSv1.2" },
  { name: "a self-signed certificate", ...plan.selfSigned },
  {
    name: "another cluster's certificate",
    cert: otherCluster.material.certificate,
    key: otherCluster.material.privateKey,
  },
];

/** Resolves when it is over, however. A status is an answer, whatever it says. */
async function ask(
  target: StrangerTarget,
  credentials: Credentials | undefined,
  path: string,
): Promise<void> {
  const isPost = path.endsWith("/blocks") || path.endsWith("/view");
  const body = isPost ? plan.blocksRequest : undefined;
  const options = {
    ...{ host: target.host, port: target.exchangePort, path, method: isPost ? "POST" : "GET" },
    headers: { host: "faasnet" },
    timeout: ASK_TIMEOUT_MS,
  };
  await new Promise<void>((resolve) => {
    const { name = "plain HTTP", ...tls } = credentials ?? {};
    const outgoing =
      credentials === undefined
        ? httpRequest({ ...options, agent: false })
        : httpsRequest({
            ...options,
            ...tls,
            agent: new Agent({ keepAlive: false, maxCachedSessions: 0 }),
            rejectUnauthorized: false,
          });
    outgoing.on("response", (response) => {
      answered.push(`${name} ${path}: ${response.statusCode ?? 0}`);
      response.resume();
      response.on("close", resolve);
    });
    outgoing.on("timeout", () => outgoing.destroy());
    outgoing.on("error", () => {
      resolve();
    });
    outgoing.end(body);
    count(name);
  });
}

async function askAll(): Promise<void> {
  while (!isOver()) {
    for (const path of plan.paths) {
      for (const credentials of [undefined, ...CREDENTIALS]) {
        if (isOver()) return;
        await ask(pick(plan.targets), credentials, path);
        await sleep(10);
      }
    }
  }
}

function open(target: StrangerTarget, kind: string, first: Buffer | undefined): Socket {
  const socket = connect({ host: target.host, port: target.exchangePort });
  socket.on("error", () => undefined);
  socket.on("data", (piece: Buffer) => {
    if (piece.includes("HTTP/")) answered.push(`${kind}: ${piece.toString("latin1").slice(0, 80)}`);
  });
  if (first !== undefined) socket.write(first);
  count(kind);
  return socket;
}

/** The beginning of a TLS ClientHello that never comes to its end (RFC 8446 4.1.2). */
function halfHandshake(): Buffer {
  const head = Buffer.from("16030102000100 01fc0303".replaceAll(" ", ""), "hex");
  return Buffer.concat([head, randomBytes(100)]);
}

async function sendGarbage(): Promise<void> {
  const lines = ["GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\0"];
  while (!isOver()) {
    const bytes = pick([randomBytes(randomInt(1, 5000)), Buffer.from(pick(lines))]);
    const socket = open(pick(plan.targets), "garbage", bytes);
    await sleep(50);
    if (randomInt(2) === 0) socket.resetAndDestroy();
    else socket.end();
  }
}

/** Connections that say nothing, or stop in the middle; opened again when they are closed. */
async function hold(): Promise<void> {
  const held = new Set<Socket>();
  while (!isOver()) {
    for (let opened = 0; opened < 50 && held.size < IDLE_CONNECTIONS; opened += 1) {
      const isHalf = held.size % 2 === 0;
      const [kind, first] = isHalf ? ["half a handshake", halfHandshake()] : ["silence", undefined];
      const socket = open(pick(plan.targets), kind, first);
      held.add(socket);
      socket.once("close", () => held.delete(socket));
    }
    await sleep(200);
  }
  for (const socket of held) socket.destroy();
}

function sealedByAnother(): Buffer {
  const sealer = new Sealer(otherRing, randomBytes(16).toString("hex"));
  const hello = encodeGreeting({
    kind: "hello",
    versions: { lowest: 1, highest: 1 },
    nonce: randomBytes(8).toString("hex"),
    wallMs: Date.now(),
  });
  return Buffer.from(sealer.seal(undefined, Buffer.concat([Buffer.of(3), hello])));
}

const PACKETS: readonly (readonly [string, () => Buffer])[] = [
  ["random packets", () => randomBytes(randomInt(0, 1400))],
  ["recorded packets", () => pick(samples)],
  ["cut packets", () => cut(pick(samples))],
  ["changed packets", () => changed(pick(samples))],
  ["lengthened packets", () => Buffer.concat([pick(samples), randomBytes(randomInt(1, 200))])],
  ["packets of another key", sealedByAnother],
  ["forged notices", () => Buffer.concat([Buffer.of(3), randomBytes(2)])],
];

function cut(packet: Buffer): Buffer {
  return packet.subarray(0, randomInt(packet.length));
}

function changed(packet: Buffer): Buffer {
  const copy = Buffer.from(packet);
  for (let changes = randomInt(1, 9); changes > 0; changes -= 1) {
    copy[randomInt(copy.length)] = randomInt(256);
  }
  return copy;
}

async function sendPackets(): Promise<void> {
  const socket = createSocket("udp4");
  socket.on("error", () => undefined);
  socket.on("message", (message) => {
    udp.received += 1;
    udp.receivedBytes += message.length;
    if (plan.markers.some((marker) => message.includes(marker))) udp.marked += 1;
  });
  const send = (bytes: Buffer): void => {
    const { host, gossipPort } = pick(plan.targets);
    udp.sentBytes += bytes.length;
    socket.send(bytes, gossipPort, host, () => undefined);
  };
  while (!isOver()) {
    for (let sent = 0; sent < PACKETS_AT_ONCE; sent += 1) {
      const [kind, make] = pick(PACKETS);
      send(make());
      count(kind);
    }
    send(randomBytes(randomInt(1500, UDP_BYTES_MAX)));
    count("oversized packets");
    await sleep(PACKETS_PAUSE_MS);
  }
  socket.close();
}

await Promise.all([askAll(), sendGarbage(), hold(), sendPackets()]);
const result: StrangerResult = { attempts, answered, udp };
process.stdout.write(`${JSON.stringify(result)}\n`, () => {
  process.exit(0);
});
