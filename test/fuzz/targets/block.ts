/** Blocks as they are decoded for a reader, and the table that says where they are. */
import { gunzipSync } from "node:zlib";
import { DaemonError } from "../../../src/base/errors.ts";
import { BLOCK_CODECS, BlockTable, decodeBlock, decodeFrame } from "../../../src/block/index.ts";
import { BlockTableBuilder } from "../../../src/block/block-table.ts";
import { blockOf, NO_DIGEST } from "../../support/block/block-of.ts";
import { asyncPiecesOf } from "../target.ts";
import type { FuzzTarget } from "../target.ts";
import { borderSamples } from "./image.ts";
import { gzipSamples, zstdSamples } from "./samples.ts";

/** Start bits, flags, 3 bytes of tar length, 2 of window length, window, blob. */
const GZIP_HEAD_BYTES = 7;

function gzipInput(
  fields: { startBits: number; atMemberStart: boolean; tarLength: number },
  window: Uint8Array,
  blob: Uint8Array,
): Buffer {
  const head = Buffer.alloc(GZIP_HEAD_BYTES);
  head[0] = fields.startBits;
  head[1] = fields.atMemberStart ? 1 : 0;
  head.writeUIntLE(fields.tarLength, 2, 3);
  head.writeUInt16LE(window.length, 5);
  return Buffer.concat([head, window, blob]);
}

const GZIP_RESUME: FuzzTarget = {
  name: "gzip-resume",
  seeds: () => [
    ...borderSamples().map(({ startBits, firstByteAt, deflated, window, output }) => {
      const fields = { startBits, atMemberStart: false, tarLength: output.length };
      return gzipInput(fields, window, deflated.subarray(firstByteAt));
    }),
    ...gzipSamples().map((blob) => {
      const tarLength = gunzipSync(blob).length;
      return gzipInput({ startBits: 0, atMemberStart: true, tarLength }, NO_DIGEST, blob);
    }),
  ],
  run: async (bytes) => {
    if (bytes.length < GZIP_HEAD_BYTES) throw new DaemonError("invalid-argument", "short input");
    const input = Buffer.from(bytes);
    const windowEnd = GZIP_HEAD_BYTES + (input.readUInt16LE(5) & 0x7fff);
    const block = blockOf({
      codec: "gzip",
      startBits: (input[0] ?? 0) & 15,
      atMemberStart: (input[1] ?? 0) % 2 === 1,
      tarLength: input.readUIntLE(2, 3),
    });
    const window = input.subarray(GZIP_HEAD_BYTES, windowEnd);
    const decoded = await decodeBlock(block, input.subarray(windowEnd), window);
    if (decoded.length !== block.tarLength) throw new Error("block of another length");
  },
};

/** 3 bytes of content length, then frames. */
const ZSTD_HEAD_BYTES = 3;

function zstdSeeds(): readonly Buffer[] {
  return zstdSamples().map(({ bytes, content }) => {
    const head = Buffer.alloc(ZSTD_HEAD_BYTES);
    head.writeUIntLE(content, 0, ZSTD_HEAD_BYTES);
    return Buffer.concat([head, bytes]);
  });
}

function zstdParts(bytes: Uint8Array): { tarLength: number; blob: Buffer } {
  if (bytes.length < ZSTD_HEAD_BYTES) throw new DaemonError("invalid-argument", "short input");
  const input = Buffer.from(bytes);
  const blob = input.subarray(ZSTD_HEAD_BYTES);
  return { tarLength: input.readUIntLE(0, ZSTD_HEAD_BYTES), blob };
}

const ZSTD_BLOCK: FuzzTarget = {
  name: "zstd-block",
  seeds: zstdSeeds,
  run: async (bytes) => {
    const { tarLength, blob } = zstdParts(bytes);
    const decoded = await decodeBlock(blockOf({ codec: "zstd", tarLength }), blob, undefined);
    if (decoded.length !== tarLength) throw new Error("block of another length");
  },
};

const ZSTD_FRAME: FuzzTarget = {
  name: "zstd-frame",
  // The last sample is several frames.
  seeds: () => zstdSeeds().slice(0, -1),
  run: async (bytes) => {
    const { tarLength, blob } = zstdParts(bytes);
    const { signal } = new AbortController();
    let length = 0;
    const frame = decodeFrame(asyncPiecesOf(blob), { tarBytes: tarLength, signal });
    for await (const piece of frame) length += piece.length;
    if (length !== tarLength) throw new Error(`frame of ${length} bytes, not ${tarLength}`);
  },
};

export function tableSample(count = 12): Buffer {
  const table = new BlockTableBuilder();
  for (let index = 0; index < count; index += 1) {
    table.add({
      ...blockOf({ codec: BLOCK_CODECS[index % 4] ?? "none", tarLength: 1000 + index }),
      tarOffset: index * 1000 + (index * (index - 1)) / 2,
      blobOffset: 500 * index,
      blobLength: 500,
      startBits: index % 8,
    });
  }
  return table.finish();
}

const BLOCK_TABLE: FuzzTarget = {
  name: "block-table",
  seeds: () => [tableSample(1), tableSample(3), tableSample()],
  run: (bytes) => {
    const table = BlockTable.parse(bytes, { blobBytes: 1_000_000 });
    let tarOffset = 0;
    for (let index = 0; index < table.count; index += 1) {
      const block = table.at(index);
      if (block.tarOffset !== tarOffset) throw new Error(`gap before block ${index}`);
      if (table.find(tarOffset) !== index) throw new Error(`block ${index} is not found`);
      tarOffset += block.tarLength;
    }
    if (table.count > 0) table.span({ start: 0, end: tarOffset });
  },
};

export const BLOCK_TARGETS: readonly FuzzTarget[] = [
  GZIP_RESUME,
  ZSTD_BLOCK,
  ZSTD_FRAME,
  BLOCK_TABLE,
];
