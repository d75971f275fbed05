/**
 * Whether gzip layers can be mapped on this Node: the pass leans on undocumented parts of
 * node:zlib, so it is tried before it is trusted.
 */
import { gzipSync } from "node:zlib";
import { DaemonError, withContext } from "../../base/errors.ts";
import { decodeBlock } from "../../block/index.ts";
import { BlockCutter, type CutBlock } from "./block-cutter.ts";
import { GzipPass } from "./gzip-pass.ts";

/** Enough for a few blocks of about 1 MiB. */
const TEST_BYTES = 2560 * 1024;
const CHUNK_BYTES = 50_000;

/**
 * Maps a made-up gzip blob and decodes each of its blocks on its own. Throws `unimplemented` with
 * the reason if gzip layers cannot be mapped here. Takes about 0.1 s.
 */
export async function selfTestGzipResume(): Promise<void> {
  try {
    await run();
  } catch (error) {
    throw withContext(error, "this Node cannot map gzip layers", "unimplemented");
  }
}

async function run(): Promise<void> {
  const tar = testBytes();
  const blob = gzipSync(tar, { level: 1, memLevel: 4 });
  const blocks = cutBlocks(blob, tar);
  if (!blocks.some((block) => block.startBits > 0)) {
    throw new DaemonError("unimplemented", "no block starts inside a byte");
  }
  for (const [index, cut] of blocks.entries()) {
    const { window, ...fields } = cut;
    const block = { ...fields, index, windowOffset: 0, windowLength: window?.length ?? 0 };
    const bytes = blob.subarray(cut.blobOffset, cut.blobOffset + cut.blobLength);
    const decoded = await decodeBlock(block, bytes, window);
    const expected = tar.subarray(cut.tarOffset, cut.tarOffset + cut.tarLength);
    if (Buffer.compare(decoded, expected) !== 0) {
      throw new DaemonError("unimplemented", `block ${index} decodes to other bytes`);
    }
  }
}

function cutBlocks(blob: Buffer, tar: Buffer): CutBlock[] {
  const cutter = new BlockCutter();
  const pass = new GzipPass(cutter);
  try {
    let offset = 0;
    const compare = (piece: Uint8Array): void => {
      const expected = tar.subarray(offset, offset + piece.length);
      if (Buffer.compare(piece, expected) !== 0) {
        throw new DaemonError("unimplemented", `wrong bytes at ${offset}`);
      }
      offset += piece.length;
    };
    for (let start = 0; start < blob.length; start += CHUNK_BYTES) {
      for (const piece of pass.push(blob.subarray(start, start + CHUNK_BYTES))) compare(piece);
    }
    for (const piece of pass.finish()) compare(piece);
    return cutter.takeClosed();
  } finally {
    pass.close();
  }
}

/** Compressible, but not too well; the same everywhere. */
function testBytes(): Buffer {
  const bytes = Buffer.alloc(TEST_BYTES);
  let state = 1;
  for (let index = 0; index < bytes.length; index += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[index] = (state >>> 16) % 3 === 0 ? (state >>> 24) & 0x3f : (bytes[index - 61] ?? 0);
  }
  return bytes;
}
