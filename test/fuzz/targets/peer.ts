/** Packets of other members, of strangers, and of members that are not honest. */
import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import {
  decodePacket,
  decodeView,
  encodeMessage,
  encodePacket,
  encodeView,
} from "../../../src/peer/membership/codec.ts";
import type { Message, ViewRecord } from "../../../src/peer/membership/messages.ts";
import { decodeMeta, encodeMeta } from "../../../src/peer/node/member-meta.ts";
import { decodeGreeting, encodeGreeting } from "../../../src/peer/transport/greeting-codec.ts";
import { KeyRing } from "../../../src/peer/transport/key-ring.ts";
import { Sealer } from "../../../src/peer/transport/seal.ts";
import { SimNetwork, SIM_KEY } from "../../support/peer/sim-nodes.ts";
import { infoOf } from "../../support/peer/swim-fixture.ts";
import type { FuzzTarget } from "../target.ts";

const META = encodeMeta({ version: 1, exchangePort: 7412, zone: "eu-1a" });
const MEMBER = infoOf(1, { meta: META });
const MEMBER6 = infoOf(2, { address: { host: "fd00::1:2", port: 99 }, id: "ü.example" });
const MESSAGES: readonly Message[] = [
  { kind: "ping", sequence: 7, target: "n1", from: "n2" },
  { kind: "ack", sequence: 7 },
  { kind: "nack", sequence: 0xffff_ffff },
  { kind: "indirect-ping", sequence: 8, target: "n1", address: MEMBER6.address },
  { kind: "alive", incarnation: 3, member: MEMBER },
  { kind: "alive", incarnation: 0, member: MEMBER6 },
  { kind: "suspect", incarnation: 1, id: "n1", from: "n2" },
  { kind: "dead", incarnation: 1, id: "n2", from: "n2" },
];
const PACKETS = [
  encodePacket(MESSAGES.map(encodeMessage)),
  ...MESSAGES.map((message) => encodePacket([encodeMessage(message)])),
];
const RECORDS: readonly ViewRecord[] = [
  { state: "alive", incarnation: 1, member: MEMBER },
  { state: "suspect", incarnation: 2, member: MEMBER6 },
  { state: "dead", incarnation: 3, member: infoOf(3) },
  { state: "left", incarnation: 4, member: infoOf(4) },
];
const GREETINGS = [
  encodeGreeting({
    kind: "hello",
    versions: { lowest: 1, highest: 2 },
    nonce: "0123456789abcdef",
    wallMs: 1_700_000_000_000,
  }),
  encodeGreeting({
    kind: "welcome",
    version: 1,
    nonce: "0123456789abcdef",
    wallMs: 1_700_000_000_000,
    incarnation: 3,
    member: MEMBER6,
  }),
];

const PACKET: FuzzTarget = {
  name: "membership-packet",
  seeds: () => PACKETS,
  run: (bytes) => {
    const messages = decodePacket(bytes);
    assert.deepEqual(decodePacket(encodePacket(messages.map(encodeMessage))), messages);
  },
};

const VIEW: FuzzTarget = {
  name: "membership-view",
  seeds: () => [encodeView(RECORDS), encodeView([])],
  run: (bytes) => {
    const records = decodeView(bytes);
    assert.deepEqual(decodeView(encodeView(records)), records);
  },
};

const GREETING: FuzzTarget = {
  name: "greeting",
  seeds: () => GREETINGS,
  run: (bytes) => {
    const message = decodeGreeting(bytes);
    assert.deepEqual(decodeGreeting(encodeGreeting(message)), message);
  },
};

const MEMBER_META: FuzzTarget = {
  name: "member-meta",
  seeds: () => [META, encodeMeta({ version: 0, exchangePort: 0, zone: "" })],
  run: (bytes) => {
    const meta = decodeMeta(bytes);
    assert.deepEqual(decodeMeta(encodeMeta(meta)), meta);
  },
};

const RING = new KeyRing([SIM_KEY]);
const RECEIVER = "ab".repeat(16);

function sealedSamples(): readonly Uint8Array[] {
  const sealer = new Sealer(RING, "cd".repeat(16));
  return [
    sealer.seal(RECEIVER, PACKETS[0] ?? new Uint8Array()),
    sealer.seal(RECEIVER, new Uint8Array()),
    sealer.seal(undefined, GREETINGS[0] ?? new Uint8Array()),
  ];
}

const SEALED_SAMPLES = sealedSamples();

/** Only what was sealed opens, and only once. */
const SEALED: FuzzTarget = {
  name: "sealed-packet",
  seeds: () => SEALED_SAMPLES,
  run: (bytes) => {
    const receiver = new Sealer(RING, RECEIVER);
    const opened = receiver.open(bytes);
    const isGenuine = SEALED_SAMPLES.some((sample) => Buffer.from(sample).equals(bytes));
    if ((opened.kind !== "refused") !== isGenuine) throw new Error(`${opened.kind}, unexpectedly`);
    if (opened.kind === "refused") throw new DaemonError("unauthenticated", opened.reason);
    const again = receiver.open(bytes);
    if (opened.kind === "member" && again.kind !== "refused") throw new Error("taken twice");
  },
};

/** A whole node: nothing that a stranger sends changes what it knows; nobody makes it throw. */
const NODE: FuzzTarget = {
  name: "node-packet",
  seeds: () => [
    ...SEALED_SAMPLES,
    ...PACKETS.map((packet) => Uint8Array.of(1, ...packet)),
    ...GREETINGS.map((greeting) => Uint8Array.of(3, ...greeting)),
    Uint8Array.of(2, 1, 2, 3),
  ],
  inputBytesMax: 1400,
  run: (bytes) => {
    using network = new SimNetwork();
    const { engine } = network.add("n0", { seeds: [] });
    const from = { host: "10.0.0.9", port: 7411 };
    const before = engine.watch.report(() => false);
    engine.receive(bytes, from);
    assert.deepEqual(
      engine.watch.report(() => false),
      before,
    );
    const insider = new Sealer(RING, "ef".repeat(16));
    const content = bytes.subarray(0, 1100);
    engine.receive(insider.seal(engine.self.boot, content), from);
    engine.receive(insider.seal(undefined, content), from);
    network.time.run(2000);
    const present = engine.watch.report(() => false);
    if (!present.some(({ isSelf, state }) => isSelf && state === "alive")) {
      throw new Error("the node has lost itself");
    }
  },
};

export const PEER_TARGETS: readonly FuzzTarget[] = [
  PACKET,
  VIEW,
  GREETING,
  MEMBER_META,
  SEALED,
  NODE,
];
