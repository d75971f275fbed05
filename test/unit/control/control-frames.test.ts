/** Frames of control.proto: splitting, limits, malformed input. */
import assert from "node:assert/strict";
import fc from "fast-check";
import {
  decodeRequest,
  decodeResponse,
  encodeFrame,
  encodeRequest,
  encodeResponse,
  FRAME_BYTES_MAX,
  FrameReader,
} from "../../../src/control/codec.ts";
import type { Envelope } from "../../../src/control/codec.ts";

function frame(id: number, payload: string): Buffer {
  return encodeFrame({
    id,
    kind: "REQUEST",
    method: "Image.Mount",
    payload: Buffer.from(payload, "latin1"),
  });
}

const STREAM = Buffer.concat([frame(1, ""), frame(2, "abc"), frame(3, "x".repeat(300))]);
const EXPECTED = ["1:", "2:abc", `3:${"x".repeat(300)}`];

function summary(envelopes: readonly Envelope[]): string[] {
  return envelopes.map(({ id, payload }) => `${id}:${Buffer.from(payload).toString("latin1")}`);
}

describe("FrameReader", () => {
  it("gives the same envelopes wherever the stream is split in two", () => {
    for (let cut = 0; cut <= STREAM.length; cut += 1) {
      const reader = new FrameReader();

      const envelopes = [
        ...reader.push(STREAM.subarray(0, cut)),
        ...reader.push(STREAM.subarray(cut)),
      ];

      assert.deepEqual(summary(envelopes), EXPECTED, `cut at ${cut}`);
    }
  });

  it("gives the same envelopes byte by byte", () => {
    const reader = new FrameReader();

    const envelopes = [...STREAM].flatMap((byte) => reader.push(Buffer.of(byte)));

    assert.deepEqual(summary(envelopes), EXPECTED);
  });

  it("refuses a frame over the limit from its length alone", () => {
    const head = Buffer.alloc(4);
    head.writeUInt32LE(FRAME_BYTES_MAX + 1);

    assert.throws(() => new FrameReader().push(head), { code: "invalid-argument" });
  });

  it("refuses a body that is no envelope", () => {
    const body = Buffer.from("0bffffffffffffffff", "hex");
    const head = Buffer.alloc(4);
    head.writeUInt32LE(body.length);

    assert.throws(() => new FrameReader().push(Buffer.concat([head, body])), {
      code: "invalid-argument",
    });
  });

  it("refuses an unknown kind", () => {
    const body = Buffer.from("1009", "hex"); // field 2, varint 9
    const head = Buffer.alloc(4);
    head.writeUInt32LE(body.length);

    assert.throws(() => new FrameReader().push(Buffer.concat([head, body])), {
      code: "invalid-argument",
    });
  });

  it("either understands or refuses any bytes with invalid-argument (property)", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        const body = Buffer.alloc(4 + bytes.length);
        body.writeUInt32LE(bytes.length);
        body.set(bytes, 4);
        try {
          new FrameReader().push(body);
        } catch (error) {
          assert.equal((error as { code?: unknown }).code, "invalid-argument");
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("encodeFrame", () => {
  it("refuses to send what the other side would refuse", () => {
    const payload = new Uint8Array(FRAME_BYTES_MAX + 1);

    assert.throws(() => encodeFrame({ id: 1, kind: "RESULT", payload }), {
      code: "resource-exhausted",
    });
  });
});

describe("control messages", () => {
  it("come back as they were sent, with defaults for what was left out", () => {
    const ranges = [{ start: 0, end: 2 ** 40 }];

    assert.deepEqual(
      decodeRequest("Keeper.Present", encodeRequest("Keeper.Present", { layer: "ab", ranges })),
      { layer: "ab", ranges },
    );
    assert.deepEqual(decodeRequest("Image.Mount", encodeRequest("Image.Mount", {})), {
      chainId: "",
      target: "",
    });
  });

  it("carry sizes up to 2^53 - 1 exactly, as numbers", () => {
    const answer = { bytes: Number.MAX_SAFE_INTEGER, blocks: 7 };

    assert.deepEqual(
      decodeResponse("Image.CacheClear", encodeResponse("Image.CacheClear", answer)),
      answer,
    );
  });

  it("are refused for a method that does not exist", () => {
    assert.throws(() => encodeRequest("Image.Nothing", {}), { code: "unimplemented" });
    assert.throws(() => encodeRequest("constructor", {}), { code: "unimplemented" });
  });

  it("are refused with invalid-argument when malformed", () => {
    assert.throws(() => decodeRequest("Image.Mount", Buffer.from("0aff", "hex")), {
      code: "invalid-argument",
    });
  });
});
