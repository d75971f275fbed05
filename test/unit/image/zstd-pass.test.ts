import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import { filter, sampleBytes } from "../../support/layers/index.ts";
import { checkBlob, layerOf, passBlob } from "./read-blocks.ts";

const MIB = 1024 * 1024;

/** One frame a piece, as `zstd` writes files of known size. */
async function frames(tar: Buffer, pieceBytes: number): Promise<Buffer> {
  return filter(
    `split -b ${pieceBytes} --filter='cat > /tmp/z.$$; zstd -qc --single-thread /tmp/z.$$; rm /tmp/z.$$'`,
    tar,
  );
}

function skippable(length: number): Buffer {
  const bytes = Buffer.alloc(8 + length, 0x55);
  bytes.writeUInt32LE(0x184d2a5e, 0);
  bytes.writeUInt32LE(length, 4);
  return bytes;
}

describe("ZstdPass", () => {
  let tar: Buffer;

  before(async () => {
    tar = await layerOf(sampleBytes(3 * MIB + 77_777, 4));
  });

  it("groups small frames of known size into blocks of about a MiB", async () => {
    const blocks = await checkBlob(await frames(tar, 300_000), tar);
    assert.equal(blocks.length, 3);
    for (const block of blocks) assert.equal(block.codec, "zstd");
  });

  it("reads small frames of unknown size", async () => {
    const blob = await filter("split -b 700000 --filter='zstd -qc --no-content-size'", tar);
    const blocks = await checkBlob(blob, tar);
    assert.equal(blocks.length, 3);
  });

  it("makes one block of a frame up to 8 MiB", async () => {
    const [block, ...others] = await checkBlob(await filter("zstd -qc", tar), tar);
    assert.deepEqual([block?.codec, others.length], ["zstd", 0]);
  });

  it("cuts a larger frame into sequential blocks, of known or unknown size", async () => {
    const large = await layerOf(Buffer.concat([sampleBytes(MIB, 2), Buffer.alloc(9 * MIB, 0x33)]));
    const unknown = await filter("zstd -qc", large);
    const known = await filter("cat > /tmp/z.$$; zstd -qc /tmp/z.$$; rm /tmp/z.$$", large);
    for (const blob of [unknown, known]) {
      const blocks = await checkBlob(blob, large);
      assert.equal(blocks.length, 11);
      for (const block of blocks) {
        assert.deepEqual(
          [block.codec, block.blobOffset, block.blobLength],
          ["zstd-sequential", 0, blob.length],
        );
      }
    }
    const mixed = Buffer.concat([await frames(tar, MIB), unknown]);
    const codecs = (await checkBlob(mixed, Buffer.concat([tar, large]))).map((b) => b.codec);
    assert.deepEqual([...new Set(codecs)], ["zstd", "zstd-sequential"]);
  });

  it("keeps small skippable frames inside blocks, large ones outside", async () => {
    const half = 1_700_000;
    const first = await filter("zstd -qc", tar.subarray(0, 400_000));
    const second = await filter("zstd -qc", tar.subarray(400_000, half));
    const third = await filter("zstd -qc", tar.subarray(half));
    const blob = Buffer.concat([
      skippable(10),
      first,
      skippable(12),
      second,
      skippable(100_000),
      third,
      skippable(0),
    ]);
    const blocks = await checkBlob(blob, tar);
    assert.deepEqual(
      blocks.map((block) => block.blobOffset),
      [18, 18 + first.length + 20 + second.length + 100_008],
    );
  });

  it("reads blobs however they arrive", async () => {
    const blob = await frames(tar.subarray(0, 50_000), 20_000);
    const expected = tar.subarray(0, 50_000);
    for (const pieceBytes of [1, 5, 13, 1000]) {
      await assert.rejects(passBlob(blob, pieceBytes), /archive ends inside the data/);
    }
    const whole = await layerOf(sampleBytes(40_000, 8));
    const small = await frames(whole, 15_000);
    for (const pieceBytes of [1, 5, 13, 1000]) {
      assert.ok((await passBlob(small, pieceBytes)).tar.equals(whole));
    }
    assert.equal(expected.length, 50_000);
  });

  it("reads stored and run-length blocks, check sums or not, and empty frames", async () => {
    const runs = await layerOf(Buffer.alloc(500_000, 1));
    await checkBlob(await filter("zstd -qc --no-check", runs), runs);
    await checkBlob(await filter("zstd -qc --check", runs), runs);
    const empty = await filter("zstd -qc", Buffer.alloc(0));
    await checkBlob(Buffer.concat([empty, await filter("zstd -qc", runs), empty]), runs);
    const { result } = await passBlob(empty);
    assert.equal(result.tarBytes, 0);
  });

  it("refuses cut blobs, garbage, dictionaries and windows over 128 MiB", async () => {
    const blob = await filter("zstd -qc", tar.subarray(0, 100_000));
    const rejects = async (bytes: Buffer, message: RegExp): Promise<void> => {
      await assert.rejects(
        passBlob(bytes),
        (error) => error instanceof DaemonError && message.test(error.message),
      );
    };
    await rejects(blob.subarray(0, -3), /stream ends inside a frame/);
    await rejects(Buffer.concat([blob, Buffer.from("garbage!")]), /invalid frame magic/);
    await rejects(Buffer.concat([blob, Buffer.alloc(2)]), /stream ends inside a frame/);
    const header = (...bytes: number[]): Buffer =>
      Buffer.concat([Buffer.of(0x28, 0xb5, 0x2f, 0xfd, ...bytes), Buffer.alloc(16)]);
    await rejects(header(0x00, 0x90), /window of 268435456 bytes/);
    await rejects(header(0x01, 0x58, 0x07), /needs a dictionary/);
    await rejects(header(0x08, 0x58), /reserved frame header bit/);
    await rejects(header(0x00, 0x58, 0x07), /reserved block type/);
    await rejects(header(0x00, 0x58, 0xf9, 0xff, 0xff), /block of \d+ bytes/);
  });

  it("never hangs nor throws anything but DaemonError on mutated blobs", async () => {
    const layer = await layerOf(sampleBytes(30_000, 6));
    const known = await frames(layer, 9000);
    const unknown = await filter("zstd -qc --no-content-size", layer);
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 5 }),
        async (isKnown, mutations) => {
          const bytes = Buffer.from(isKnown ? known : unknown);
          for (const [at, value] of mutations) bytes[at % bytes.length] = value;
          try {
            await passBlob(bytes, 5000);
          } catch (error) {
            assert.ok(error instanceof DaemonError, String(error));
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});
