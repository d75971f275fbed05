/** The block table's binary form and what it refuses. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { errorCode } from "../../../src/base/errors.ts";
import { BLOCK_BLOB_BYTES_MAX, BLOCK_RECORD_BYTES, BlockTable } from "../../../src/block/index.ts";
import { evenLayer, sampleLayer } from "../../support/block/sample-layer.ts";

function isDataLoss(error: unknown): boolean {
  return errorCode(error) === "data-loss";
}

describe("BlockTable", () => {
  it("finds the block of every offset", () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(lengths, (each) => {
        const { table } = sampleLayer(
          1,
          each.map((tarLength) => ({ tarLength })),
        );
        for (let offset = 0; offset < table.tarBytes; offset += 1) {
          const { tarOffset, tarLength } = table.at(table.find(offset));
          assert.ok(tarOffset <= offset && offset < tarOffset + tarLength);
        }
      }),
      { numRuns: 30 },
    );
  });

  it("refuses tables that are cut, leave gaps or reach past the blob", () => {
    const { table, blob } = evenLayer(2, 3, 100);
    const bytes = Buffer.from(table.bytes);
    const parse = (edit: (copy: Buffer) => Buffer, blobBytes = blob.length): (() => void) => {
      const copy = edit(Buffer.from(bytes));
      return () => BlockTable.parse(copy, { blobBytes });
    };
    assert.throws(
      parse((copy) => copy.subarray(1)),
      isDataLoss,
    );
    assert.throws(
      parse((copy) => copy.subarray(BLOCK_RECORD_BYTES)),
      isDataLoss,
    );
    assert.throws(
      parse((copy) => copy, blob.length - 1),
      isDataLoss,
    );
    const withCodec = (codec: number) => (copy: Buffer) => {
      copy.writeUInt8(codec, 24);
      return copy;
    };
    assert.throws(parse(withCodec(99)), isDataLoss);
  });

  it("refuses blob ranges too large to hold, but for frames that are streamed", () => {
    const { table } = evenLayer(3, 1, 100);
    const parse = (codec: number): BlockTable => {
      const copy = Buffer.from(table.bytes);
      copy.writeUInt32LE(BLOCK_BLOB_BYTES_MAX + 1, 20);
      copy.writeUInt8(codec, 24);
      return BlockTable.parse(copy, { blobBytes: 2 ** 40 });
    };
    assert.throws(() => parse(1), isDataLoss);
    assert.equal(parse(3).count, 1);
  });
});
