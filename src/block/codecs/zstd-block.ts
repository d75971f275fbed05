/** Decodes blocks of zstd blobs: whole frames, or one large frame as it arrives. */
import { throwIfAborted } from "../../base/abort.ts";
import { DaemonError } from "../../base/errors.ts";
import type { Block } from "../block-table.ts";
import { decodeZstdFrame, openZstdFrame, type ZstdFrameDecoder } from "./zstd-engine.ts";
import { ZstdScanner, type ZstdPart } from "./zstd-scan.ts";

/** Frames of a block that state their size are decoded at once up to this size. */
export const ZSTD_WHOLE_FRAME_BYTES_MAX = 8 * 1024 * 1024;

/** A frame of the block and what its header says. */
interface Frame {
  readonly parts: Uint8Array[];
  readonly contentBytes: number | undefined;
}

/** The block holds whole frames; skippable ones among them mean nothing. */
export async function decodeZstdBlock(block: Block, blobBytes: Uint8Array): Promise<Uint8Array> {
  const output: Uint8Array[] = [];
  let left = block.tarLength;
  for (const frame of splitFrames(blobBytes)) {
    for await (const bytes of decodeFrameParts(frame, left)) {
      left -= bytes.length;
      if (left < 0) throw tooLong();
      output.push(bytes);
    }
  }
  const [only] = output;
  return output.length === 1 && only !== undefined ? only : Buffer.concat(output);
}

function* splitFrames(blobBytes: Uint8Array): Generator<Frame> {
  const scanner = new ZstdScanner();
  let frame: Frame | undefined;
  for (const part of scanner.push(blobBytes)) {
    if (part.kind === "skippable") continue;
    if (part.kind === "header") frame = { parts: [], contentBytes: part.header.contentBytes };
    frame?.parts.push(part.bytes);
    if (frame !== undefined && part.kind !== "header" && part.endsFrame) {
      yield frame;
      frame = undefined;
    }
  }
  scanner.finish();
}

async function* decodeFrameParts(frame: Frame, room: number): AsyncGenerator<Uint8Array> {
  const { contentBytes, parts } = frame;
  if (contentBytes !== undefined) {
    if (contentBytes > room) throw tooLong();
    yield await decodeZstdFrame(Buffer.concat(parts), contentBytes);
    return;
  }
  const decoder = openZstdFrame();
  try {
    for (const part of parts) {
      const bytes = await decoder.push(part);
      // The decoder may reuse its output.
      if (bytes.length > 0) yield Buffer.from(bytes);
    }
  } finally {
    decoder.close();
  }
}

/**
 * Decodes the one frame that a `zstd-sequential` run of blocks shares, while its bytes arrive.
 * Yields exactly `tarBytes` bytes or throws `data-loss`; pieces may be views that are reused.
 */
export async function* decodeFrame(
  blob: AsyncIterable<Uint8Array>,
  options: { readonly tarBytes: number; readonly signal: AbortSignal },
): AsyncGenerator<Uint8Array> {
  const scanner = new ZstdScanner();
  const decoder = openZstdFrame();
  let left = options.tarBytes;
  let hasEnded = false;
  try {
    for await (const chunk of blob) {
      for (const part of scanner.push(chunk)) {
        throwIfAborted(options.signal);
        if (hasEnded) throw new DaemonError("data-loss", "zstd: bytes after the frame");
        hasEnded = part.kind !== "header" && part.endsFrame;
        const bytes = await pushPart(decoder, part);
        left -= bytes.length;
        if (left < 0) throw tooLong();
        if (bytes.length > 0) yield bytes;
      }
    }
    scanner.finish();
    if (left > 0) throw new DaemonError("data-loss", `zstd frame lacks ${left} bytes`);
  } finally {
    decoder.close();
  }
}

async function pushPart(decoder: ZstdFrameDecoder, part: ZstdPart): Promise<Uint8Array> {
  return part.kind === "skippable" ? new Uint8Array(0) : decoder.push(part.bytes);
}

function tooLong(): DaemonError {
  return new DaemonError("data-loss", "zstd frame decodes to more than its block table says");
}
