import assert from "node:assert/strict";
import { constants, deflateRawSync, inflateRawSync } from "node:zlib";
import fc from "fast-check";
import { alignDeflate } from "../../../src/block/codecs/index.ts";
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

describe("probeStartBits", () => {
  const data = sampleBytes(600_000, 7);

  it("finds the bit that pako knows, at every border and at all eight positions", () => {
    const seen = new Set<number>();
    for (const memLevel of [1, 3, 8]) {
      const deflated = deflateRawSync(data, { memLevel, level: 6 });
      for (const border of deflateBorders(deflated, data.length)) {
        const found = probeAt(deflated, data, border);
        assert.equal(found, border.bit % 8, `border at bit ${border.bit}`);
        seen.add(border.bit % 8);
      }
    }
    assert.deepEqual([...seen].sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it("knows fixed, Huffman-only and run-length blocks", () => {
    for (const strategy of [constants.Z_FIXED, constants.Z_HUFFMAN_ONLY, constants.Z_RLE]) {
      const deflated = deflateRawSync(data, { memLevel: 2, strategy });
      for (const border of deflateBorders(deflated, data.length)) {
        assert.equal(probeAt(deflated, data, border), border.bit % 8, `strategy ${strategy}`);
      }
    }
  });

  it("is never wrong about stored blocks, if it answers", () => {
    const random = sampleBytes(200_000, 3).map((byte, index) => byte ^ (index * 167));
    const deflated = deflateRawSync(random, { level: 0, memLevel: 1 });
    const bytes = Buffer.from(random);
    let answers = 0;
    for (const border of deflateBorders(deflated, bytes.length)) {
      const found = probeAt(deflated, bytes, border);
      if (found === undefined) continue;
      answers += 1;
      const place = {
        bit: Math.ceil(border.bit / 8) * 8 - (found === 0 ? 0 : 8 - found),
        output: border.output,
      };
      assert.deepEqual(resumeAt(deflated, bytes, place), bytes.subarray(border.output));
    }
    assert.ok(answers > 3);
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
