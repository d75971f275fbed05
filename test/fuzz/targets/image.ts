/** Layer blobs while they are mapped: tar, gzip, zstd, and the probe for deflate block borders. */
import { crc32, deflateRawSync, inflateRawSync, constants } from "node:zlib";
import { DaemonError } from "../../../src/base/errors.ts";
import { gzipHeaderLength } from "../../../src/block/index.ts";
import { ErofsReader, writeErofs } from "../../../src/erofs/index.ts";
import { BlockCutter } from "../../../src/image/pass/block-cutter.ts";
import type { BlobPass } from "../../../src/image/pass/blob-pass.ts";
import { probeStartBits } from "../../../src/image/pass/deflate-probe.ts";
import { GzipPass } from "../../../src/image/pass/gzip-pass.ts";
import { ZstdPass } from "../../../src/image/pass/zstd-pass.ts";
import { TarParser } from "../../../src/image/tar/parser.ts";
import { TreeBuilder } from "../../../src/image/tree/tree-builder.ts";
import { readAll } from "../../support/erofs/read-all.ts";
import { deflateBorders, sampleBytes } from "../../support/layers/index.ts";
import { piecesOf } from "../target.ts";
import type { FuzzTarget } from "../target.ts";
import { gzipSamples, repairTar, TAR_BLOCK, tarSamples, zstdSamples } from "./samples.ts";

/** A small input may decode to much; what comes after this is more of the same. */
const OUTPUT_BYTES_MAX = 8 * 1024 * 1024;
const REPAIR_OUTPUT_BYTES_MAX = 4 * 1024 * 1024;

/** An accepted tar must give metadata that reads back without a complaint. */
function checkWritten(image: Buffer): void {
  try {
    readAll(ErofsReader.open(image), (read) => read());
  } catch (error) {
    throw new Error("metadata of an accepted tar does not read back", { cause: error });
  }
}

const TAR: FuzzTarget = {
  name: "tar",
  seeds: tarSamples,
  repair: repairTar,
  run: (bytes) => {
    const tree = new TreeBuilder();
    const parser = new TarParser((entry) => {
      tree.add(entry);
    });
    for (const piece of piecesOf(bytes)) parser.push(piece);
    parser.finish();
    const device = Math.ceil(bytes.length / TAR_BLOCK) * TAR_BLOCK;
    checkWritten(writeErofs(tree.root, { devices: [{ bytes: device }] }));
  },
};

async function decodeAll(open: (cutter: BlockCutter) => BlobPass, bytes: Uint8Array) {
  const cutter = new BlockCutter();
  const pass = open(cutter);
  let output = 0;
  const count = (piece: Uint8Array): void => {
    output += piece.length;
    if (output > OUTPUT_BYTES_MAX) throw new DaemonError("resource-exhausted", "enough output");
  };
  try {
    for (const piece of piecesOf(bytes)) {
      for await (const decoded of pass.push(piece)) count(decoded);
    }
    for await (const decoded of pass.finish()) count(decoded);
    const cut = cutter.takeClosed().reduce((total, block) => total + block.tarLength, 0);
    if (cut !== output) throw new Error(`blocks of ${cut} bytes, output of ${output}`);
  } finally {
    pass.close();
  }
}

/** Gives every member that still inflates the trailer that belongs to its content. */
function repairGzip(bytes: Buffer): Buffer {
  let at = 0;
  try {
    while (at < bytes.length) {
      const header = gzipHeaderLength(bytes, at);
      if (header === undefined) break;
      const result: unknown = inflateRawSync(bytes.subarray(at + header), {
        finishFlush: constants.Z_SYNC_FLUSH,
        maxOutputLength: REPAIR_OUTPUT_BYTES_MAX,
        info: true,
      });
      const { buffer, engine } = result as { buffer: Buffer; engine: { bytesWritten: number } };
      at += header + engine.bytesWritten;
      if (at + 8 > bytes.length) break;
      bytes.writeUInt32LE(crc32(buffer), at);
      bytes.writeUInt32LE(buffer.length, at + 4);
      at += 8;
    }
  } catch {
    // Not gzip any more: it stays as it is.
  }
  return bytes;
}

const GZIP_PASS: FuzzTarget = {
  name: "gzip-pass",
  seeds: gzipSamples,
  repair: repairGzip,
  inputBytesMax: 16 * 1024,
  run: (bytes) => decodeAll((cutter) => new GzipPass(cutter), bytes),
};

const ZSTD_PASS: FuzzTarget = {
  name: "zstd-pass",
  seeds: () => zstdSamples().map((sample) => sample.bytes),
  inputBytesMax: 16 * 1024,
  run: (bytes) => decodeAll((cutter) => new ZstdPass(cutter), bytes),
};

/** A deflate stream cut at one of its block borders. */
export function borderSamples() {
  const data = sampleBytes(12_000, 7);
  const deflated = deflateRawSync(data, { level: 6, memLevel: 1 });
  return deflateBorders(deflated, data.length)
    .slice(0, 6)
    .map(({ bit, output }) => ({
      startBits: bit % 8,
      /** The byte before when the border lies between bytes. */
      lastByteAt: bit % 8 === 0 ? bit / 8 - 1 : Math.floor(bit / 8),
      firstByteAt: Math.floor(bit / 8),
      deflated,
      window: data.subarray(0, output),
      output: data.subarray(output),
    }));
}

const PROBE_HEAD_BYTES = 5;

const DEFLATE_PROBE: FuzzTarget = {
  name: "deflate-probe",
  seeds: () =>
    borderSamples().map(({ deflated, lastByteAt, window, output }) => {
      const head = Buffer.alloc(PROBE_HEAD_BYTES);
      const shown = output.subarray(0, 1024);
      head.writeUInt16LE(window.length, 1);
      head.writeUInt16LE(shown.length, 3);
      return Buffer.concat([head, window, shown, deflated.subarray(lastByteAt)]);
    }),
  run: (bytes) => {
    if (bytes.length < PROBE_HEAD_BYTES) throw new DaemonError("invalid-argument", "short input");
    const input = Buffer.from(bytes);
    const windowEnd = PROBE_HEAD_BYTES + (input.readUInt16LE(1) & 0x7fff);
    const outputEnd = windowEnd + input.readUInt16LE(3);
    const found = probeStartBits({
      window: input.subarray(PROBE_HEAD_BYTES, windowEnd),
      output: input.subarray(windowEnd, outputEnd),
      bytes: input.subarray(outputEnd),
      endsStream: (input[0] ?? 0) % 2 === 1,
    });
    if (found === undefined) throw new DaemonError("not-found", "no bit position");
    if (found < 0 || found > 7) throw new Error(`bit position ${found}`);
  },
};

export const IMAGE_TARGETS: readonly FuzzTarget[] = [TAR, GZIP_PASS, DEFLATE_PROBE, ZSTD_PASS];
