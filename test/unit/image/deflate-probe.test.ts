import assert from "node:assert/strict";
import { constants, deflateRawSync, inflateRawSync } from "node:zlib";
import fc from "fast-check";
import { alignDeflate } from "../../../src/block/index.ts";
import { probeStartBits } from "../../../src/image/pass/deflate-probe.ts";
import { deflateBorders, sampleBytes, type DeflateBorder } from "../../support/layers/index.ts";

const WINDOW_BYTES = 32_768;
const EVIDENCE_BYTES = 1024;

function probeAt(deflated: Buffer, data: Buffer, border: DeflateBorder): number | undefined {
  const end = Math.min(border.output + EVIDENCE_BYTES, data.length);
  return probeStartBits({
    bytes: deflated.subarray(Math.ceil(border.bit / 8) - 1),
    window: data.subarray(Math.max(0, border.output - WINDOW_BYTES), border.output),
    output: data.subarray(border.output, end),
    endsStream: end === data.length,
  });
}

function resumeAt(deflated: Buffer, data: Buffer, border: DeflateBorder): Buffer {
  const aligned = alignDeflate(deflated.subarray(Math.floor(border.bit / 8)), border.bit % 8);
  const dictionary = data.subarray(Math.max(0, border.output - WINDOW_BYTES), border.output);
  return inflateRawSync(aligned, { dictionary });
}

/** A stored block begins with three zero bits; where it may not be told, it is not a cut. */
function isStored(deflated: Buffer, border: DeflateBorder): boolean {
  const bits = deflated.readUInt16LE(Math.floor(border.bit / 8)) >> (border.bit % 8);
  return (bits & 0b110) === 0;
}

function checkBorders(deflated: Buffer, data: Buffer): Set<number> {
  const seen = new Set<number>();
  for (const border of deflateBorders(deflated, data.length)) {
    const found = probeAt(deflated, data, border);
    if (isStored(deflated, border)) {
      if (found === undefined) continue;
      const first = Math.ceil(border.bit / 8) * 8;
      const bit = found === 0 ? first : first - 8 + found;
      const resumed = resumeAt(deflated, data, { bit, output: border.output });
      assert.ok(resumed.equals(data.subarray(border.output)), `stored at bit ${border.bit}`);
    } else {
      assert.equal(found, border.bit % 8, `border at bit ${border.bit}`);
      seen.add(found);
    }
  }
  return seen;
}

describe("probeStartBits", () => {
  const data = sampleBytes(300_000, 7);

  it("finds the bit that pako knows, at every border and at all eight positions", () => {
    for (const memLevel of [1, 3]) {
      const deflated = deflateRawSync(data, { memLevel, level: 6 });
      assert.equal(checkBorders(deflated, data).size, 8);
    }
    checkBorders(deflateRawSync(data, { level: 6 }), data);
  });

  it("knows fixed, Huffman-only and run-length blocks", () => {
    for (const strategy of [constants.Z_FIXED, constants.Z_HUFFMAN_ONLY, constants.Z_RLE]) {
      const deflated = deflateRawSync(data, { memLevel: 2, strategy });
      assert.equal(checkBorders(deflated, data).size, 8, `strategy ${strategy}`);
    }
  });

  it("answers for some stored blocks", () => {
    const deflated = deflateRawSync(data, { level: 0, memLevel: 1 });
    const borders = deflateBorders(deflated, data.length);
    checkBorders(deflated, data);
    assert.ok(borders.some((border) => probeAt(deflated, data, border) !== undefined));
  });

  it("tells nothing from evidence that fits no candidate", () => {
    const deflated = deflateRawSync(data, { memLevel: 3 });
    const [border] = deflateBorders(deflated, data.length);
    assert.ok(border !== undefined);
    const wrong = probeStartBits({
      bytes: deflated.subarray(Math.ceil(border.bit / 8) - 1),
      window: Buffer.alloc(0),
      output: Buffer.alloc(EVIDENCE_BYTES, 0xee),
      endsStream: false,
    });
    assert.equal(wrong, undefined);
  });

  it("takes any bytes without failing", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }),
        fc.uint8Array({ maxLength: 64 }),
        fc.uint8Array({ minLength: 1, maxLength: 64 }),
        fc.boolean(),
        (bytes, window, output, endsStream) => {
          const found = probeStartBits({ bytes, window, output, endsStream });
          assert.ok(found === undefined || (found >= 0 && found < 8));
        },
      ),
    );
  });
});

describe("alignDeflate", () => {
  it("lets zlib resume at every border, whatever its bit", () => {
    const data = sampleBytes(150_000, 5);
    const deflated = deflateRawSync(data, { memLevel: 1 });
    const seen = new Set<number>();
    for (const border of deflateBorders(deflated, data.length)) {
      seen.add(border.bit % 8);
      assert.deepEqual(resumeAt(deflated, data, border), data.subarray(border.output));
    }
    assert.equal(seen.size, 8);
  });
});
