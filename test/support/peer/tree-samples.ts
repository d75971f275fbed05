/** One tree message of every kind, and generators of any. */
import fc from "fast-check";
import type { Address } from "../../../src/peer/membership/index.ts";
import type { PeerRef } from "../../../src/peer/peer-ref.ts";
import type { Contact, TreeMessage } from "../../../src/peer/tree/messages.ts";
import { imageOf } from "./tree-checks.ts";

export function refOf(number: number, changes: Partial<PeerRef> = {}): PeerRef {
  return {
    id: `n${number}`,
    boot: (number + 1).toString(16).padStart(32, "0"),
    address: { host: `10.0.${number >> 8}.${number & 255}`, port: 7946 },
    exchangePort: 7947,
    zone: "",
    version: 1,
    ...changes,
  };
}

export function contactOf({ id, boot, address }: PeerRef): Contact {
  return { id, boot, address };
}

const epoch = { counter: 7, manager: "n1" };
const image = imageOf(3);
const manager = contactOf(refOf(1));

export const TREE_SAMPLES: readonly TreeMessage[] = [
  {
    kind: "report",
    image,
    member: refOf(2, { zone: "a", address: { host: "2001:db8::2", port: 1 } }),
    hops: 1,
    rank: "manager",
    heldBlocks: 100,
    interior: 2,
    bytesPerSecond: 1e6,
    seat: { slot: 5, depth: 2, size: 9, epoch, fingerprint: 0xdeadbeef },
  },
  {
    kind: "report",
    image,
    member: refOf(2),
    hops: 0,
    rank: "any",
    heldBlocks: 0,
    interior: 0,
    bytesPerSecond: 0,
  },
  {
    kind: "position",
    image,
    epoch,
    slot: 5,
    depth: 2,
    size: 9,
    children: 1,
    fingerprint: 1,
    root: refOf(0),
    parent: refOf(3),
    grandparent: refOf(0),
    manager,
    deputy: contactOf(refOf(4)),
  },
  { kind: "ack", image, epoch, size: 9, children: 2 },
  { kind: "wait", image, forMs: 1000 },
  { kind: "refused", image, reason: "zones" },
  { kind: "leave", image, member: manager },
  { kind: "gone", image },
  { kind: "complaint", image, accuser: "n1", about: "n2", reason: "wrong-bytes" },
  { kind: "ping", image, nonce: 0xffff_ffff },
  { kind: "pong", image, nonce: 1, isManager: false, isMember: true, manager, epoch },
  { kind: "beat", image, epoch, size: 9, manager, handover: true },
  { kind: "beat-ack", image, known: 8 },
  { kind: "rival", image, epoch, size: 9, manager },
  { kind: "token", image, nonce: 5, bytes: 1 << 20 },
  { kind: "token-answer", image, nonce: 5, granted: false, retryAfterMs: 250 },
];

const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true });
const u32 = fc.nat(0xffff_ffff);
const u8 = fc.nat(255);
const port = fc.integer({ min: 1, max: 65_535 });
const hex = (length: number): fc.Arbitrary<string> =>
  fc
    .uint8Array({ minLength: length, maxLength: length })
    .map((bytes) => Buffer.from(bytes).toString("hex"));
const word = (maxLength: number): fc.Arbitrary<string> =>
  fc
    .array(fc.constantFrom("a", "7", "-", ".", "é", "雪"), { minLength: 1, maxLength })
    .map((chars) => {
      // By bytes, not characters.
      let text = "";
      for (const char of chars) if (Buffer.byteLength(text + char) <= maxLength) text += char;
      return text === "" ? "a" : text;
    });
const id = word(253);
const zone = fc.oneof(fc.constant(""), word(64));
const address: fc.Arbitrary<Address> = record({
  host: fc.oneof(fc.ipV4(), fc.constantFrom("::1", "2001:db8::7", "fe80::1:2:3")),
  port,
});
const contact: fc.Arbitrary<Contact> = record({ id, boot: hex(16), address });
const ref: fc.Arbitrary<PeerRef> = record({
  id,
  boot: hex(16),
  address,
  exchangePort: port,
  zone,
  version: u8,
});
const epochs = record({ counter: fc.nat(2 ** 47), manager: id });
const anyImage = hex(32).map((text) => `sha256:${text}`);
const size = u32;
const seat = record({ slot: u32, depth: u8, size, epoch: epochs, fingerprint: u32 });

function withOptional<T extends object>(
  base: fc.Arbitrary<T>,
  optional: Readonly<Record<string, fc.Arbitrary<unknown>>>,
): fc.Arbitrary<T> {
  return fc
    .tuple(base, fc.record(optional, { requiredKeys: [], noNullPrototype: true }))
    .map(([one, more]) => ({ ...one, ...more }));
}

/** Positions are not among them: of the longest parts are left out. */
export const anyTreeMessage: fc.Arbitrary<TreeMessage> = fc.oneof(
  withOptional(
    record({
      kind: fc.constant("report" as const),
      image: anyImage,
      member: ref,
      hops: u8,
      rank: fc.constantFrom("any" as const, "manager" as const, "deputy" as const),
      heldBlocks: u32,
      interior: u8,
      bytesPerSecond: u32,
    }),
    { seat },
  ),
  record({
    kind: fc.constant("ack" as const),
    image: anyImage,
    epoch: epochs,
    size,
    children: fc.nat(65_535),
  }),
  record({ kind: fc.constant("leave" as const), image: anyImage, member: contact }),
  withOptional(
    record({
      kind: fc.constant("pong" as const),
      image: anyImage,
      nonce: u32,
      isManager: fc.boolean(),
      isMember: fc.boolean(),
    }),
    { manager: contact, epoch: epochs },
  ),
  record({
    kind: fc.constant("beat" as const),
    image: anyImage,
    epoch: epochs,
    size,
    manager: contact,
    handover: fc.boolean(),
  }),
  record({
    kind: fc.constant("complaint" as const),
    image: anyImage,
    accuser: id,
    about: id,
    reason: fc.constantFrom("silent" as const, "wrong-bytes" as const),
  }),
);

/** Of any length, with or without each part. */
export const anyPosition: fc.Arbitrary<TreeMessage & { readonly kind: "position" }> = withOptional(
  record({
    kind: fc.constant("position" as const),
    image: anyImage,
    counter: fc.nat(2 ** 47),
    slot: u32,
    depth: u8,
    size,
    children: fc.nat(65_535),
    fingerprint: u32,
    root: ref,
    parent: ref,
    manager: contact,
  }),
  { grandparent: ref, deputy: contact },
).map(({ counter, ...position }) => ({
  ...position,
  epoch: { counter, manager: position.manager.id },
}));
