import assert from "node:assert/strict";
import { deflateRawSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import type { Block } from "../../../src/block/index.ts";
import { decodeBlock, decodeFrame } from "../../../src/block/index.ts";
import { blockOf as anyBlock } from "../../support/block/block-of.ts";
import {
  chunksOf,
  deflateBorders,
  filter,
  gzipMember,
  sampleBytes,
} from "../../support/layers/index.ts";

const DATA = sampleBytes(200_000, 11);
/** Of all of `DATA`, unless told otherwise. */
function blockOf(fields: Partial<Block>): Block {
  return anyBlock({ tarLength: DATA.length, ...fields });
}

async function rejects(promise: Promise<unknown>): Promise<void> {
  await assert.rejects(
    promise,
    (error) => error instanceof DaemonError && error.code === "data-loss",
  );
}

describe("decodeBlock", () => {
  it("passes uncompressed bytes through, of the right length only", async () => {
    const block = blockOf({ codec: "none", tarLength: 3 });
    assert.deepEqual(await decodeBlock(block, Buffer.from("abc"), undefined), Buffer.from("abc"));
    await rejects(decodeBlock(block, Buffer.from("ab"), undefined));
  });

  it("decodes whole gzip members, several and empty ones too", async () => {
    const blob = Buffer.concat([
      gzipSync(DATA.subarray(0, 5)),
      gzipSync(Buffer.alloc(0)),
      gzipMember(DATA.subarray(5), { name: "name", headerCrc: true }),
    ]);
    assert.ok(DATA.equals(await decodeBlock(blockOf({ atMemberStart: true }), blob, undefined)));
  });

  it("decodes a part of a member, and on into further members", async () => {
    const first = gzipMember(DATA.subarray(0, 120_000), { memLevel: 2 });
    const blob = Buffer.concat([first, gzipSync(DATA.subarray(120_000, 150_000)), gzipSync(DATA)]);
    const deflated = first.subarray(10, -8);
    for (const border of deflateBorders(deflated, 120_000).slice(0, 60)) {
      const bit = border.bit + 80;
      const window = DATA.subarray(Math.max(0, border.output - 32_768), border.output);
      const rest = blob.subarray(Math.floor(bit / 8));
      const place = { startBits: bit % 8, windowLength: window.length };
      const inside = blockOf({ ...place, tarLength: 120_000 - border.output });
      const alone = rest.subarray(0, rest.length - (blob.length - first.length));
      assert.ok(
        DATA.subarray(border.output, 120_000).equals(await decodeBlock(inside, alone, window)),
      );
      const further = blockOf({ ...place, tarLength: 150_000 - border.output + DATA.length });
      const expected = Buffer.concat([DATA.subarray(border.output, 150_000), DATA]);
      assert.ok(expected.equals(await decodeBlock(further, rest, window)));
    }
  });

  it("refuses output that is longer or shorter than the block, or damaged input", async () => {
    const blob = gzipSync(DATA);
    const atMemberStart = true;
    await rejects(decodeBlock(blockOf({ atMemberStart, tarLength: 10 }), blob, undefined));
    await rejects(
      decodeBlock(blockOf({ atMemberStart, tarLength: DATA.length - 1 }), blob, undefined),
    );
    await rejects(
      decodeBlock(blockOf({ atMemberStart, tarLength: DATA.length + 1 }), blob, undefined),
    );
    await rejects(decodeBlock(blockOf({ atMemberStart }), Buffer.from("nonsense"), undefined));
    await rejects(decodeBlock(blockOf({ startBits: 3 }), Buffer.alloc(0), undefined));
    await rejects(decodeBlock(blockOf({ startBits: 9 }), blob, undefined));
    const bomb = deflateRawSync(Buffer.alloc(20_000_000));
    await rejects(decodeBlock(blockOf({ tarLength: 1000 }), bomb, undefined));
  });

  it("decodes zstd frames, with or without a stated size, and skippable ones among them", async () => {
    const unknown = await filter("zstd -qc --no-content-size", DATA.subarray(0, 70_000));
    const file = "cat > /tmp/zb.$$; zstd -qc /tmp/zb.$$; rm /tmp/zb.$$";
    const known = await filter(file, DATA.subarray(70_000));
    const skippable = Buffer.from("502a4d1803000000616263", "hex");
    const blob = Buffer.concat([skippable, unknown, skippable, known, skippable]);
    const block = blockOf({ codec: "zstd" });
    assert.ok(DATA.equals(await decodeBlock(block, blob, undefined)));
    await rejects(decodeBlock(blockOf({ codec: "zstd", tarLength: 60_000 }), blob, undefined));
    await rejects(decodeBlock(blockOf({ codec: "zstd", tarLength: 100_000 }), blob, undefined));
    await rejects(decodeBlock(block, unknown, undefined));
    await rejects(decodeBlock(block, blob.subarray(0, -4), undefined));
    const damaged = Buffer.from(known);
    damaged.fill(0x77, 2000, 2100);
    const short = blockOf({ codec: "zstd", tarLength: DATA.length - 70_000 });
    await rejects(decodeBlock(short, damaged, undefined));
  });

  it("bounds what a zstd bomb can cost", async () => {
    const bomb = await filter("head -c 100000000 /dev/zero | zstd -qc --no-content-size", DATA);
    await rejects(decodeBlock(blockOf({ codec: "zstd", tarLength: 1000 }), bomb, undefined));
  });

  it("refuses a zstd block whose sequences decode to more than a block may", async () => {
    // 190 bytes, and 10^9 steps for a decoder that does not check. Found by fuzzing.
    const frame = Buffer.from(
      "KLUv/WTDFFUFACKHFxdw2QFQ+kPpD6WP/39b2LsiItLTq76fJoD7CN9786rzCN9786rrCN9786rjCN9786rbCN97" +
        "86rTCN978wKaQQYdGSBQkdomNDkZF5RU5FhLGReUVORYS2bQkQ8GTUMyhGJJaSRVP6gx3NZY9jPgpQ4RMAQ/" +
        "QnBC+P/5AZiZMjPJSZyZSWbOSJQpU+bMSCgzU86UkSgzU5mZKhJEiChCxPXdt/0WFm5ghdKqC0BWAUt+5qw=",
      "base64",
    );
    await rejects(decodeBlock(blockOf({ codec: "zstd", tarLength: 5571 }), frame, undefined));
  });

  it("refuses a zstd frame whose checksum is wrong", async () => {
    const frame = await filter("zstd -qc --check", DATA);
    frame.writeUInt32LE((frame.readUInt32LE(frame.length - 4) ^ 1) >>> 0, frame.length - 4);
    await rejects(decodeBlock(blockOf({ codec: "zstd" }), frame, undefined));
  });

  it("cannot decode a sequential block alone", async () => {
    await assert.rejects(
      decodeBlock(blockOf({ codec: "zstd-sequential" }), Buffer.alloc(1), undefined),
      (error) => error instanceof DaemonError && error.code === "internal",
    );
  });

  it("takes any bytes without failing otherwise", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 300 }),
        fc.constantFrom("gzip" as const, "zstd" as const),
        fc.boolean(),
        fc.nat({ max: 7 }),
        async (bytes, codec, atMemberStart, startBits) => {
          const magic = codec === "zstd" ? "28b52ffd" : "1f8b0800000000000000";
          const blob = Buffer.concat([Buffer.from(magic, "hex"), bytes]);
          const block = blockOf({ codec, atMemberStart, startBits, tarLength: 500 });
          try {
            await decodeBlock(block, blob, undefined);
          } catch (error) {
            assert.ok(error instanceof DaemonError && error.code === "data-loss", String(error));
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("decodeFrame", () => {
  const { signal } = new AbortController();

  async function collect(blob: Buffer, tarBytes: number, pieceBytes = 5000): Promise<Buffer> {
    const output: Buffer[] = [];
    for await (const bytes of decodeFrame(chunksOf(blob, pieceBytes), { tarBytes, signal })) {
      output.push(Buffer.from(bytes));
    }
    return Buffer.concat(output);
  }

  it("yields the frame's bytes while they arrive", async () => {
    const blob = await filter("zstd -qc", DATA);
    for (const pieceBytes of [7, 5000, blob.length]) {
      assert.ok(DATA.equals(await collect(blob, DATA.length, pieceBytes)));
    }
  });

  it("refuses frames that are longer, shorter, cut, followed or damaged", async () => {
    const blob = await filter("zstd -qc", DATA);
    await rejects(collect(blob, DATA.length - 1));
    await rejects(collect(blob, DATA.length + 1));
    await rejects(collect(blob.subarray(0, -9), DATA.length));
    await rejects(collect(Buffer.concat([blob, blob]), 2 * DATA.length));
    await rejects(collect(Buffer.from("nonsense, quite"), 5));
  });

  it("stops when cancelled", async () => {
    const blob = await filter("zstd -qc", DATA);
    const aborted = AbortSignal.abort();
    const frames = decodeFrame(chunksOf(blob), { tarBytes: DATA.length, signal: aborted });
    await assert.rejects(
      frames[Symbol.asyncIterator]().next(),
      (error) => error instanceof DaemonError && error.code === "canceled",
    );
  });
});
