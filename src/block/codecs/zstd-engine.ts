/** The zstd decoder of a frame: whole where its size is known and small, else part by part. */
import { DaemonError } from "../../base/errors.ts";
import { ZstdStream, decompressZstd } from "../../base/libzstd.ts";

/** Decodes one frame, part by part as ZstdScanner yields them. A block gives at most 128 KiB. */
export interface ZstdFrameDecoder {
  /** Output may be a view that the next call reuses. */
  push(part: Uint8Array): Promise<Uint8Array>;
  close(): void;
}

export function openZstdFrame(): ZstdFrameDecoder {
  return new ZstdStream();
}

/** One whole frame whose header states `contentBytes`; the result has exactly that length. */
export async function decodeZstdFrame(
  frame: Uint8Array,
  contentBytes: number,
): Promise<Uint8Array> {
  if (contentBytes === 0) return new Uint8Array(0);
  const output = await decompressZstd(frame, contentBytes);
  if (output.length !== contentBytes) {
    throw new DaemonError("data-loss", `zstd frame of ${contentBytes} bytes does not decode`);
  }
  return output;
}
