import assert from "node:assert/strict";
import { constants, gzipSync } from "node:zlib";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import { selfTestGzipResume } from "../../../src/image/index.ts";
import { isStepperSupported } from "../../../src/image/pass/inflate-stepper.ts";
import {
  deflateBorders,
  filter,
  gzipMember,
  gzipMembers,
  sampleBytes,
} from "../../support/layers/index.ts";
import { checkBlob, layerOf, passBlob } from "./read-blocks.ts";

const MIB = 1024 * 1024;

async function rejects(blob: Buffer, message: RegExp): Promise<void> {
  await assert.rejects(
    passBlob(blob),
    (error) => error instanceof DaemonError && message.test(error.message),
  );
}

describe("GzipPass", () => {
  let tar: Buffer;

  before(async () => {
    tar = await layerOf(sampleBytes(3 * MIB));
  });

  it("cuts the output of every common producer into blocks that decode alone", async () => {
    const producers: Readonly<Record<string, Buffer | Promise<Buffer>>> = {
      "gzip -1": filter("gzip -1", tar),
      "gzip -6": filter("gzip -6", tar),
      "gzip -9": filter("gzip -9", tar),
      "zlib 1": gzipSync(tar, { level: 1 }),
      "zlib 9, small blocks": gzipSync(tar, { level: 9, memLevel: 2 }),
      "zlib fixed codes": gzipSync(tar, { strategy: constants.Z_FIXED }),
      "zlib Huffman only": gzipSync(tar, { strategy: constants.Z_HUFFMAN_ONLY }),
      "zlib stored": gzipSync(tar, { level: 0 }),
      pigz: filter("pigz -p2", tar),
      "pigz, independent": filter("pigz -i -p2", tar),
    };
    for (const [name, blob] of Object.entries(producers)) {
      const blocks = await checkBlob(await blob, tar);
      assert.ok(blocks.length >= 3, `${name}: ${blocks.length} blocks`);
      for (const block of blocks) {
        assert.ok(block.tarLength < 2 * MIB, `${name}: block of ${block.tarLength}`);
      }
    }
  });

  it("cuts only where pako sees a deflate block begin", async () => {
    const blob = gzipSync(tar, { level: 6, memLevel: 5 });
    const { blocks } = await passBlob(blob);
    const headerBytes = 10;
    const borders = new Map(
      deflateBorders(blob.subarray(headerBytes, -8), tar.length).map((border) => [
        border.bit + headerBytes * 8,
        border.output,
      ]),
    );
    for (const block of blocks.slice(1)) {
      assert.equal(borders.get(block.blobOffset * 8 + block.startBits), block.tarOffset);
    }
    assert.ok(blocks.length >= 3);
  });

  it("groups small members and cuts large ones", async () => {
    const small = await checkBlob(gzipMembers(tar, 20_000), tar);
    assert.ok(small.length <= 4);
    for (const block of small) assert.equal(block.atMemberStart, true);
    const large = await checkBlob(gzipMembers(tar, 1_600_000), tar);
    assert.ok(large.some((block) => block.atMemberStart && block.tarOffset > 0));
    assert.ok(large.some((block) => !block.atMemberStart));
  });

  it("reads empty members at the start, in the middle and at the end", async () => {
    const empty = gzipMember(Buffer.alloc(0));
    const footer = gzipMember(Buffer.alloc(0), { extra: Buffer.alloc(26, 1) });
    const half = Math.floor(tar.length / 2);
    const first = gzipMember(tar.subarray(0, half));
    const second = gzipMember(tar.subarray(half));
    await checkBlob(Buffer.concat([empty, empty, first, empty, second, empty, footer]), tar);
  });

  it("reads members with every header field", async () => {
    const data = await layerOf(Buffer.from("data"));
    const blob = gzipMember(data, {
      extra: Buffer.alloc(2000, 7),
      name: "n".repeat(500),
      comment: "c",
      headerCrc: true,
    });
    await checkBlob(blob, data);
    for (const pieceBytes of [1, 9, 4096]) {
      const { tar: streamed } = await passBlob(blob, pieceBytes);
      assert.ok(streamed.equals(data));
    }
  });

  it("does not depend on how the blob arrives", async () => {
    const blob = gzipSync(tar, { level: 6 });
    const whole = await passBlob(blob, blob.length);
    for (const pieceBytes of [997, 65_536]) {
      assert.deepEqual((await passBlob(blob, pieceBytes)).blocks, whole.blocks);
    }
  });

  it("reads incompressible data and long runs of zeros", async () => {
    const mixed = await layerOf(
      Buffer.concat([Buffer.alloc(3 * MIB), sampleBytes(MIB, 9), Buffer.alloc(3 * MIB, 0x20)]),
    );
    await checkBlob(gzipSync(mixed, { level: 9 }), mixed);
  });

  it("reads an empty layer", async () => {
    const { result, blocks } = await passBlob(gzipSync(Buffer.alloc(0)));
    assert.deepEqual([result.tarBytes, blocks.length], [0, 0]);
  });

  it("refuses what Go refuses: trailing zeros or garbage, a cut blob, wrong check sums", async () => {
    const blob = gzipSync(await layerOf(Buffer.from("data")));
    await rejects(Buffer.concat([blob, Buffer.alloc(512)]), /invalid gzip member header/);
    await rejects(Buffer.concat([blob, Buffer.from("garbage")]), /invalid gzip member header/);
    await rejects(blob.subarray(0, -1), /blob ends inside a member/);
    await rejects(blob.subarray(0, -20), /blob ends inside a member/);
    await rejects(Buffer.concat([blob, blob.subarray(0, 5)]), /blob ends inside a member/);
    await rejects(flip(blob, blob.length - 1), /wrong length of the member/);
    await rejects(flip(blob, blob.length - 5), /wrong CRC of the member/);
    await rejects(flip(blob, 3, 0x80), /reserved flags/);
    await rejects(gzipMember(Buffer.alloc(0), { name: "n".repeat(600) }), /overlong text/);
  });

  it("never hangs nor throws anything but DaemonError on mutated blobs", async () => {
    const blob = gzipMembers(await layerOf(sampleBytes(30_000)), 9000, 6);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 5 }),
        async (mutations) => {
          const bytes = Buffer.from(blob);
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

  it("passes its self-test on this Node and knows the Nodes that it was tried on", async () => {
    await selfTestGzipResume();
    assert.equal(isStepperSupported("22.1.0"), true);
    assert.equal(isStepperSupported("25.0.0"), false);
  });
});

function flip(bytes: Buffer, at: number, mask = 0xff): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ mask;
  return copy;
}
