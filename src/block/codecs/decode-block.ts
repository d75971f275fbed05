/** Blob bytes of one block to its tar bytes. */
import { DaemonError } from "../../base/errors.ts";
import type { Block } from "../block-table.ts";
import { decodeGzipBlock } from "./gzip-block.ts";
import { decodeZstdBlock } from "./zstd-block.ts";

/**
 * Exactly `block.tarLength` bytes, or `data-loss`; never allocates much more than that. Digests are
 * the caller's business. The result may share memory with `blobBytes` (codec `none`).
 */
export async function decodeBlock(
  block: Block,
  blobBytes: Uint8Array,
  window: Uint8Array | undefined,
): Promise<Uint8Array> {
  const decoded = await decode(block, blobBytes, window);
  if (decoded.length !== block.tarLength) {
    const message = `block ${block.index} decodes to ${decoded.length} bytes, not ${block.tarLength}`;
    throw new DaemonError("data-loss", message);
  }
  return decoded;
}

async function decode(
  block: Block,
  blobBytes: Uint8Array,
  window: Uint8Array | undefined,
): Promise<Uint8Array> {
  try {
    switch (block.codec) {
      case "none":
        return blobBytes;
      case "gzip":
        return await decodeGzipBlock(block, blobBytes, window);
      case "zstd":
        return await decodeZstdBlock(block, blobBytes);
      case "zstd-sequential":
        throw new DaemonError("internal", "a zstd-sequential block cannot be decoded alone");
    }
  } catch (error) {
    if (error instanceof DaemonError) throw error;
    throw new DaemonError("data-loss", `block ${block.index} does not decode`, { cause: error });
  }
}
