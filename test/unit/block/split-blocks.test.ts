/** Cutting streams into blocks. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { errorCode } from "../../../src/base/errors.ts";
import { splitBlocks } from "../../../src/block/split-blocks.ts";
import type { BlockPlace } from "../../../src/block/split-blocks.ts";
import { sampleBytes } from "../../support/block/sample-layer.ts";

async function* inPieces(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let offset = 0;
  for (let at = 0; offset < bytes.length; at += 1) {
    const size = sizes[at % sizes.length] ?? 1;
    const piece = Buffer.from(bytes.subarray(offset, offset + size));
    offset += size;
    yield await Promise.resolve(piece);
    piece.fill(0xdd); // the source may use its buffer again
  }
}

describe("splitBlocks", () => {
  it("yields every place's bytes whatever the pieces, overlaps and gaps", async () => {
    const place = fc.record({
      length: fc.integer({ min: 1, max: 40 }),
      gap: fc.integer({ min: -1, max: 10 }),
    });
    const sizes = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(place, { minLength: 1, maxLength: 20 }),
        sizes,
        fc.integer({ min: 0, max: 1000 }),
        async (shapes, pieceSizes, start) => {
          const places: BlockPlace[] = [];
          let end = start;
          for (const [index, { length, gap }] of shapes.entries()) {
            const from = index === 0 ? start : end + (length > 1 ? gap : Math.max(0, gap));
            end = Math.max(end, from + length);
            places.push({ index, start: from, end: from + length });
          }
          const bytes = sampleBytes(1, end - start + 3);
          const seen: number[] = [];
          for await (const block of splitBlocks(inPieces(bytes, pieceSizes), start, places)) {
            const expected = places[block.index];
            assert.ok(expected !== undefined);
            seen.push(block.index);
            assert.deepEqual(
              Buffer.from(block.bytes),
              bytes.subarray(expected.start - start, expected.end - start),
            );
          }
          assert.deepEqual(seen, [...places.keys()]);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("says how far a short stream came", async () => {
    const places = [{ index: 0, start: 10, end: 30 }];
    const read = async (): Promise<void> => {
      for await (const block of splitBlocks(inPieces(sampleBytes(1, 15), [4]), 10, places)) {
        assert.fail(`block ${block.index}`);
      }
    };
    await assert.rejects(read(), (error) => {
      assert.equal(errorCode(error), "unavailable");
      assert.match(String(error), /after 15 of 20 bytes/);
      return true;
    });
  });

  it("does not read on after the last place", async () => {
    let isReturned = false;
    async function* endless(): AsyncGenerator<Uint8Array> {
      try {
        for (;;) yield await Promise.resolve(Buffer.alloc(8));
      } finally {
        isReturned = true;
      }
    }
    const places = [{ index: 3, start: 0, end: 10 }];
    const seen: number[] = [];
    for await (const { index } of splitBlocks(endless(), 0, places)) seen.push(index);
    assert.deepEqual(seen, [3]);
    assert.equal(isReturned, true);
  });
});
