/** Tree messages as bytes: what is written reads back, and nothing else is accepted. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeTreeMessage, encodeTreeMessage } from "../../../../src/peer/tree/codec.ts";
import { MESSAGE_BYTES_MAX } from "../../../../src/peer/tree/wire.ts";
import { DaemonError } from "../../../../src/base/errors.ts";
import {
  anyPosition,
  anyTreeMessage,
  refOf,
  TREE_SAMPLES,
} from "../../../support/peer/tree-samples.ts";

describe("the codec of tree messages", () => {
  for (const sample of TREE_SAMPLES) {
    it(`reads back a ${sample.kind}`, () => {
      assert.deepEqual(decodeTreeMessage(encodeTreeMessage(sample)), sample);
    });
  }

  it("reads back whatever it wrote, ids of any length", () => {
    fc.assert(
      fc.property(anyTreeMessage, (message) => {
        const bytes = encodeTreeMessage(message);
        assert.ok(bytes.length <= MESSAGE_BYTES_MAX);
        assert.deepEqual(decodeTreeMessage(bytes), message);
      }),
    );
  });

  it("fits any position into a packet, and leaves out only grandparent and deputy", () => {
    fc.assert(
      fc.property(anyPosition, (position) => {
        const bytes = encodeTreeMessage(position);
        assert.ok(bytes.length <= MESSAGE_BYTES_MAX);
        const read = decodeTreeMessage(bytes);
        assert.ok(read.kind === "position");
        const { grandparent, deputy, ...kept } = read;
        const { grandparent: wasGrandparent, deputy: wasDeputy, ...expected } = position;
        assert.deepEqual(kept, expected);
        for (const [part, was] of [
          [grandparent, wasGrandparent],
          [deputy, wasDeputy],
        ] as const) {
          if (part !== undefined) assert.deepEqual(part, was);
          else if (was !== undefined) assert.ok(bytes.length > MESSAGE_BYTES_MAX - 400);
        }
      }),
    );
  });

  it("refuses by name what is cut, too long, or nonsense, and throws nothing else", () => {
    for (const sample of TREE_SAMPLES) {
      const bytes = encodeTreeMessage(sample);
      for (let length = 0; length < bytes.length; length += 1) {
        assert.throws(() => decodeTreeMessage(bytes.subarray(0, length)), { code: "data-loss" });
      }
      const longer = Buffer.concat([bytes, Buffer.of(0)]);
      assert.throws(() => decodeTreeMessage(longer), { code: "data-loss" });
    }
    assert.throws(() => decodeTreeMessage(new Uint8Array(MESSAGE_BYTES_MAX + 1)), {
      code: "data-loss",
    });
    fc.assert(
      fc.property(fc.constantFrom(...TREE_SAMPLES), fc.nat(), fc.nat(255), (sample, at, value) => {
        const bytes = Uint8Array.from(encodeTreeMessage(sample));
        bytes[at % bytes.length] = value;
        try {
          decodeTreeMessage(bytes);
        } catch (error) {
          assert.ok(error instanceof DaemonError);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it("refuses ids and zones that would spoil a terminal", () => {
    const bad = { ...TREE_SAMPLES[1], member: refOf(1, { id: "a\nb" }) };
    const zoned = { ...TREE_SAMPLES[1], member: refOf(1, { zone: "a b" }) };
    for (const message of [bad, zoned]) {
      const bytes = encodeTreeMessage(message as (typeof TREE_SAMPLES)[0]);
      assert.throws(() => decodeTreeMessage(bytes), { code: "data-loss" });
    }
  });

  it("lets two adjacent versions understand each other, and names two that do not", () => {
    const [sample] = TREE_SAMPLES;
    assert.ok(sample !== undefined);
    const [one, two, three] = [
      { version: 1, oldest: 1 },
      { version: 2, oldest: 1 },
      { version: 3, oldest: 2 },
    ];
    const appended = Buffer.concat([encodeTreeMessage(sample, two), Buffer.from("a new field")]);

    assert.deepEqual(decodeTreeMessage(appended, one), sample);
    assert.deepEqual(decodeTreeMessage(encodeTreeMessage(sample, one), two), sample);
    assert.throws(() => decodeTreeMessage(encodeTreeMessage(sample, three), one), {
      code: "failed-precondition",
      message: /version 2 to 3; this node speaks 1 to 1/,
    });
    assert.throws(() => decodeTreeMessage(encodeTreeMessage(sample, one), three), {
      code: "failed-precondition",
    });
    const added = Uint8Array.of(2, 1, 200, 7, 7);
    assert.throws(() => decodeTreeMessage(added, one), { code: "unimplemented" });
    assert.throws(() => decodeTreeMessage(added, two), { code: "data-loss" });
  });
});
