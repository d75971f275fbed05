/** Packets and views as bytes: all that is written reads back, nothing else breaks the reader. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../../src/base/errors.ts";
import {
  decodePacket,
  decodeView,
  encodeMessage,
  encodePacket,
  encodeView,
  roomBeside,
} from "../../../../src/peer/membership/codec.ts";
import type { MemberInfo } from "../../../../src/peer/membership/member.ts";
import type { Message, ViewRecord } from "../../../../src/peer/membership/messages.ts";
import { addressBytes, hostOf } from "../../../../src/peer/membership/wire.ts";

/** Objects as the decoder makes them, not ones without a prototype. */
function plain<T>(fields: { [Key in keyof T]: fc.Arbitrary<T[Key]> }): fc.Arbitrary<T> {
  return fc.record<T>(fields, { noNullPrototype: true });
}

const u32 = fc.integer({ min: 0, max: 0xffff_fffe });
const id = fc.stringMatching(/^[A-Za-zäß0-9._:-]{1,60}$/u);
const host = fc.oneof(
  fc.ipV4(),
  fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) => hostOf(bytes)),
);
const address = plain({ host, port: fc.integer({ min: 1, max: 65_535 }) });
const member: fc.Arbitrary<MemberInfo> = plain({
  id,
  boot: fc.stringMatching(/^[0-9a-f]{32}$/),
  address,
  meta: fc.uint8Array({ maxLength: 128 }),
});
const message: fc.Arbitrary<Message> = fc.oneof(
  plain({ kind: fc.constant("ping" as const), sequence: u32, target: id, from: id }),
  plain({ kind: fc.constantFrom("ack" as const, "nack" as const), sequence: u32 }),
  plain({ kind: fc.constant("indirect-ping" as const), sequence: u32, target: id, address }),
  plain({ kind: fc.constant("alive" as const), incarnation: u32, member }),
  plain({
    kind: fc.constantFrom("suspect" as const, "dead" as const),
    incarnation: u32,
    id,
    from: id,
  }),
);
const record: fc.Arbitrary<ViewRecord> = plain({
  state: fc.constantFrom("alive", "suspect", "dead", "left"),
  incarnation: u32,
  member,
});

function refusesOrTakes(decode: () => unknown): void {
  try {
    decode();
  } catch (error) {
    assert.ok(error instanceof DaemonError, String(error));
    assert.ok(error.code === "data-loss" || error.code === "failed-precondition");
  }
}

describe("Membership packets", () => {
  it("read back as written", () => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 12 }), (messages) => {
        const fitting: Message[] = [];
        const encoded: Uint8Array[] = [];
        for (const one of messages) {
          const bytes = encodeMessage(one);
          if (bytes.length > roomBeside(encoded)) continue;
          encoded.push(bytes);
          fitting.push(one);
        }
        assert.deepEqual(decodePacket(encodePacket(encoded)), fitting);
      }),
    );
  });

  it("refuse what is damaged, cut or random, and break in no other way", () => {
    fc.assert(
      fc.property(message, fc.nat(), fc.integer({ min: 0, max: 255 }), (one, at, byte) => {
        const packet = encodePacket([encodeMessage(one)]);
        refusesOrTakes(() => decodePacket(packet.subarray(0, at % packet.length)));
        packet[at % packet.length] = byte;
        refusesOrTakes(() => decodePacket(packet));
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        refusesOrTakes(() => decodePacket(Uint8Array.from([1, ...bytes])));
        refusesOrTakes(() => decodeView(Uint8Array.from([1, ...bytes])));
      }),
      { numRuns: 2000 },
    );
  });

  it("skip messages of kinds that a later version adds", () => {
    const ack = encodeMessage({ kind: "ack", sequence: 1 });
    const unknown = Uint8Array.from([200, 0, 2, 9, 9]);
    assert.deepEqual(decodePacket(encodePacket([unknown, ack])), [{ kind: "ack", sequence: 1 }]);
  });

  it("skip fields that a later version adds behind those of a message", () => {
    const [kind = 0, high = 0, low = 0, ...body] = encodeMessage({ kind: "ack", sequence: 1 });
    const longer = Uint8Array.from([kind, high, low + 2, ...body, 9, 9]);
    const packet = encodePacket([longer, encodeMessage({ kind: "nack", sequence: 2 })]);
    assert.deepEqual(decodePacket(packet), [
      { kind: "ack", sequence: 1 },
      { kind: "nack", sequence: 2 },
    ]);
  });

  it("name the version of another wire format", () => {
    assert.throws(() => decodePacket(Uint8Array.of(2)), {
      code: "failed-precondition",
      message: "membership version 2; this node speaks 1",
    });
  });

  it("hold a bounded number of messages", () => {
    const empty = Array.from({ length: 300 }, () => [1, 0, 0]).flat();
    assert.throws(() => decodePacket(Uint8Array.from([1, ...empty])), { code: "data-loss" });
    assert.throws(() => decodePacket(new Uint8Array(2000)), { code: "data-loss" });
  });
});

describe("A view", () => {
  it("reads back as written", () => {
    fc.assert(
      fc.property(fc.array(record, { maxLength: 20 }), (records) => {
        assert.deepEqual(decodeView(encodeView(records)), records);
      }),
    );
  });

  it("is refused when it claims more members than any cluster has", () => {
    assert.throws(() => decodeView(Uint8Array.of(1, 0xff, 0xff, 0xff, 0xff)), {
      code: "data-loss",
      message: /a view of 4294967295 members/,
    });
  });
});

describe("Addresses", () => {
  for (const [text, spelled] of [
    ["192.0.2.1", "192.0.2.1"],
    ["::", "::"],
    ["::1", "::1"],
    ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
    ["::ffff:192.0.2.1", "::ffff:c000:201"],
    ["fe80::", "fe80::"],
    ["1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"],
  ] as const) {
    it(`are spelled in one way: ${text}`, () => {
      assert.equal(hostOf(addressBytes(text)), spelled);
    });
  }

  it("are not names, nor have they zones", () => {
    for (const text of ["localhost", "fe80::1%eth0", "1.2.3", ""]) {
      assert.throws(() => addressBytes(text), { code: "invalid-argument" });
    }
  });
});
