/**
 * The zstd decoders at hand: node:zlib's where this Node has it (22.15 and later), else zstddec
 * (WASM; fast, whole frames of known size) and fzstd (plain JavaScript; streaming).
 */
import * as zlib from "node:zlib";
import { Decompress } from "fzstd";
import { ZSTDDecoder } from "zstddec";
import { DaemonError } from "../../base/errors.ts";
import { ZSTD_BLOCK_BYTES_MAX } from "./zstd-scan.ts";

/** Decodes one frame, part by part as ZstdScanner yields them. A block gives at most 128 KiB. */
export interface ZstdFrameDecoder {
  /** Output may be a view that the next call reuses. */
  push(part: Uint8Array, options: { readonly endsFrame: boolean }): Promise<Uint8Array>;
  close(): void;
}

type Transform = import("node:stream").Transform;

/** What newer Nodes add to node:zlib; missing from the types of Node 20. */
interface NativeZstd {
  zstdDecompress(
    input: Uint8Array,
    options: { maxOutputLength: number; chunkSize: number },
    callback: (error: Error | null, output: Buffer) => void,
  ): void;
  createZstdDecompress(options: { chunkSize: number; readableHighWaterMark: number }): Transform;
}

function nativeZstd(): NativeZstd | undefined {
  return "zstdDecompress" in zlib && "createZstdDecompress" in zlib
    ? (zlib as unknown as NativeZstd)
    : undefined;
}

export function openZstdFrame(): ZstdFrameDecoder {
  const native = nativeZstd();
  return native === undefined ? new ScriptFrameDecoder() : new NativeFrameDecoder(native);
}

/** One whole frame whose header states `contentBytes`; the result has exactly that length. */
export async function decodeZstdFrame(
  frame: Uint8Array,
  contentBytes: number,
): Promise<Uint8Array> {
  if (contentBytes === 0) return new Uint8Array(0);
  const native = nativeZstd();
  const output =
    native === undefined
      ? await decodeWithWasm(frame, contentBytes)
      : await decodeNatively(native, frame, contentBytes);
  if (output.length !== contentBytes) {
    throw new DaemonError("data-loss", `zstd frame of ${contentBytes} bytes does not decode`);
  }
  return output;
}

let wasm: Promise<ZSTDDecoder> | undefined;

async function openWasm(): Promise<ZSTDDecoder> {
  const decoder = new ZSTDDecoder();
  await decoder.init();
  return decoder;
}

async function decodeWithWasm(frame: Uint8Array, contentBytes: number): Promise<Uint8Array> {
  wasm ??= openWasm();
  const decoder = await wasm;
  try {
    return decoder.decode(frame, contentBytes);
  } catch (error) {
    throw new DaemonError("data-loss", "zstd frame does not decode", { cause: error });
  }
}

async function decodeNatively(
  native: NativeZstd,
  frame: Uint8Array,
  contentBytes: number,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const options = { maxOutputLength: contentBytes + 64, chunkSize: contentBytes + 64 };
    native.zstdDecompress(frame, options, (error, output) => {
      if (error === null) resolve(output);
      else reject(new DaemonError("data-loss", "zstd frame does not decode", { cause: error }));
    });
  });
}

class ScriptFrameDecoder implements ZstdFrameDecoder {
  #output: Uint8Array[] = [];
  readonly #decoder = new Decompress((bytes) => {
    if (bytes.length > 0) this.#output.push(bytes);
  });

  async push(part: Uint8Array, options: { readonly endsFrame: boolean }): Promise<Uint8Array> {
    try {
      this.#decoder.push(part, options.endsFrame);
    } catch (error) {
      return Promise.reject(
        new DaemonError("data-loss", "zstd frame does not decode", { cause: error }),
      );
    }
    const output = this.#output;
    this.#output = [];
    const [only] = output;
    return Promise.resolve(
      output.length === 1 && only !== undefined ? only : Buffer.concat(output),
    );
  }

  close(): void {
    this.#output = [];
  }
}

class NativeFrameDecoder implements ZstdFrameDecoder {
  readonly #stream: Transform;
  #failure: Error | undefined;
  /** Ends the write under way: after an error node:zlib does not call its callback. */
  #onFailure: ((error: Error) => void) | undefined;

  constructor(native: NativeZstd) {
    this.#stream = native.createZstdDecompress({
      chunkSize: 2 * ZSTD_BLOCK_BYTES_MAX,
      // Never full: what one block gives is taken before the next is written.
      readableHighWaterMark: 8 * ZSTD_BLOCK_BYTES_MAX,
    });
    this.#stream.on("error", (error) => {
      this.#failure = error;
      this.#onFailure?.(error);
    });
  }

  async push(part: Uint8Array): Promise<Uint8Array> {
    await new Promise<void>((resolve, reject) => {
      this.#onFailure = (error) => {
        reject(new DaemonError("data-loss", "zstd frame does not decode", { cause: error }));
      };
      if (this.#failure !== undefined) {
        this.#onFailure(this.#failure);
        return;
      }
      this.#stream.write(part, (error) => {
        if (error === null || error === undefined) resolve();
        else this.#onFailure?.(error);
      });
    });
    const output: unknown = this.#stream.read();
    return output instanceof Uint8Array ? output : new Uint8Array(0);
  }

  close(): void {
    this.#stream.destroy();
  }
}
