/** A block with what a test does not care about filled in. */
import type { Block } from "../../../src/block/index.ts";

/** Nothing compares it: decoding checks no digest. */
export const NO_DIGEST = new Uint8Array(32);

export function blockOf(fields: Partial<Block> & Pick<Block, "tarLength">): Block {
  return {
    index: 0,
    tarOffset: 0,
    blobOffset: 0,
    blobLength: 1,
    codec: "gzip",
    startBits: 0,
    atMemberStart: false,
    windowOffset: 0,
    windowLength: 0,
    blobSha256: NO_DIGEST,
    tarSha256: NO_DIGEST,
    ...fields,
  };
}
