import assert from "node:assert/strict";
import { crc32c } from "../../../src/erofs/crc32c.ts";
import { piecesOf } from "../../../src/erofs/index.ts";

describe("piecesOf", () => {
  const extents = [
    { fileOffset: 1024, length: 1024, device: 1, deviceOffset: 512 },
    { fileOffset: 4096, length: 512, device: 2, deviceOffset: 0 },
  ];
  const data = { kind: "extents", size: 6000, extents } as const;

  it("fills holes with zeros and ends at the end of the file", () => {
    assert.deepEqual(piecesOf(data, { start: 1000, end: 9000 }), [
      { kind: "zeros", length: 24 },
      { kind: "device", device: 1, deviceOffset: 512, length: 1024 },
      { kind: "zeros", length: 2048 },
      { kind: "device", device: 2, deviceOffset: 0, length: 512 },
      { kind: "zeros", length: 1392 },
    ]);
  });

  it("cuts pieces at the ends of the range", () => {
    assert.deepEqual(piecesOf(data, { start: 1100, end: 1200 }), [
      { kind: "device", device: 1, deviceOffset: 588, length: 100 },
    ]);
    assert.deepEqual(piecesOf(data, { start: 2048, end: 2050 }), [{ kind: "zeros", length: 2 }]);
    assert.deepEqual(piecesOf(data, { start: 6000, end: 7000 }), []);
    assert.deepEqual(piecesOf(data, { start: 7000, end: 8000 }), []);
  });

  it("takes inline bytes", () => {
    const inline = { kind: "inline", bytes: Buffer.from("hello") } as const;
    const pieces = piecesOf(inline, { start: 3, end: 10 });
    assert.deepEqual(pieces, [{ kind: "bytes", bytes: Buffer.from("lo") }]);
    assert.deepEqual(piecesOf(inline, { start: 9, end: 10 }), []);
    assert.deepEqual(piecesOf({ kind: "none" }, { start: 0, end: 10 }), []);
  });
});

describe("crc32c", () => {
  it("agrees with the published check value", () => {
    // RFC 3720 B.4 and others: 0xe3069283 with the final inversion.
    assert.equal(~crc32c(0xffffffff, Buffer.from("123456789")) >>> 0, 0xe3069283);
  });
});
