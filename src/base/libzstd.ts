/**
 * libzstd (Debian's libzstd1, which dpkg itself needs) by FFI. The decoders in JavaScript and
 * WebAssembly that npm has either trust their input (a block of 128 KiB kept fzstd busy for
 * seconds) or take whole frames only; this one is fuzzed by its makers, and is faster than both.
 */
import { DaemonError } from "./errors.ts";

/** Source: zstd.h, ZSTD_d_windowLogMax. */
const D_WINDOW_LOG_MAX = 100;
/** 128 MiB: a frame that asks for more is refused. Source: zstd.h, ZSTD_WINDOWLOG_LIMIT_DEFAULT. */
const WINDOW_LOG_MAX = 27;
/** The most that one block decodes to. Source: zstd.h, ZSTD_BLOCKSIZE_MAX. */
const OUTPUT_BYTES = 128 * 1024;

/** An opaque pointer. */
type Context = unknown;
/** A count of bytes, or an error: those are at the end of size_t's range, beyond safe numbers. */
type SizeOrError = number | bigint;

interface StreamBuffer {
  readonly size: number;
  pos: number;
}

interface Library {
  readonly createContext: () => Context;
  readonly freeContext: (context: Context) => SizeOrError;
  readonly setParameter: (context: Context, parameter: number, value: number) => SizeOrError;
  readonly decodeStream: (
    context: Context,
    output: StreamBuffer & { readonly dst: Uint8Array },
    input: StreamBuffer & { readonly src: Uint8Array },
  ) => SizeOrError;
  readonly decodeFrame: (output: Uint8Array, input: Uint8Array) => Promise<SizeOrError>;
  readonly errorName: (error: SizeOrError) => string;
}

let library: Promise<Library> | undefined;

async function loadLibrary(): Promise<Library> {
  const koffi = (await import("koffi")).default;
  const zstd = ((): ReturnType<typeof koffi.load> => {
    try {
      return koffi.load("libzstd.so.1");
    } catch (cause) {
      const what = "zstd layers need libzstd.so.1 (Debian package libzstd1)";
      throw new DaemonError("failed-precondition", what, { cause });
    }
  })();
  const inBuffer = koffi.struct({ src: "const void*", size: "size_t", pos: "size_t" });
  const outBuffer = koffi.struct({ dst: "void*", size: "size_t", pos: "size_t" });
  const decompress = zstd.func(
    "size_t ZSTD_decompress(void* dst, size_t capacity, const void* src, size_t size)",
  );
  return {
    createContext: zstd.func("void* ZSTD_createDCtx()") as Library["createContext"],
    freeContext: zstd.func("size_t ZSTD_freeDCtx(void*)") as Library["freeContext"],
    setParameter: zstd.func(
      "size_t ZSTD_DCtx_setParameter(void*, int, int)",
    ) as Library["setParameter"],
    decodeStream: zstd.func("ZSTD_decompressStream", "size_t", [
      "void*",
      koffi.inout(koffi.pointer(outBuffer)),
      koffi.inout(koffi.pointer(inBuffer)),
    ]) as Library["decodeStream"],
    decodeFrame: (output, input) =>
      new Promise((resolve, reject) => {
        const done = (error: unknown, result: SizeOrError): void => {
          // Naming the buffers here keeps them alive while the other thread uses them.
          if (error === null && output.length + input.length > 0) resolve(result);
          else reject(new DaemonError("internal", "ZSTD_decompress failed", { cause: error }));
        };
        decompress.async(output, output.length, input, input.length, done);
      }),
    errorName: zstd.func("const char* ZSTD_getErrorName(size_t)") as Library["errorName"],
  };
}

async function openLibrary(): Promise<Library> {
  library ??= loadLibrary();
  return library;
}

function checked(zstd: Library, result: SizeOrError): number {
  if (typeof result === "number") return result;
  throw new DaemonError("data-loss", `zstd: ${zstd.errorName(result)}`);
}

/**
 * Decodes one whole frame, off the event loop, to at most `contentBytes`. Throws `data-loss`, also
 * for a frame that decodes to more.
 */
export async function decompressZstd(frame: Uint8Array, contentBytes: number): Promise<Uint8Array> {
  const zstd = await openLibrary();
  const output = Buffer.allocUnsafeSlow(contentBytes);
  const length = checked(zstd, await zstd.decodeFrame(output, frame));
  return output.subarray(0, length);
}

/** Decodes a stream, piece by piece. Owns native memory until it is closed. */
export class ZstdStream {
  readonly #output = Buffer.allocUnsafeSlow(OUTPUT_BYTES);
  #zstd: Library | undefined;
  #context: Context;
  #isClosed = false;

  /**
   * What `input` adds: a view that the next call reuses. Takes well below a millisecond for a zstd
   * block. Throws `data-loss`; the stream is of no more use then.
   */
  async push(input: Uint8Array): Promise<Uint8Array> {
    this.#zstd ??= await openLibrary();
    const zstd = this.#zstd;
    if (this.#isClosed) throw new DaemonError("canceled", "zstd stream is closed");
    this.#context ??= openContext(zstd);
    const pieces: Uint8Array[] = [];
    let taken = 0;
    for (;;) {
      const from = { src: input, size: input.length, pos: taken };
      const to = { dst: this.#output, size: OUTPUT_BYTES, pos: 0 };
      checked(zstd, zstd.decodeStream(this.#context, to, from));
      taken = from.pos;
      const isDone = taken === input.length && to.pos < OUTPUT_BYTES;
      const piece = this.#output.subarray(0, to.pos);
      if (isDone && pieces.length === 0) return piece;
      if (piece.length > 0) pieces.push(Buffer.from(piece));
      if (isDone) return Buffer.concat(pieces);
    }
  }

  close(): void {
    this.#isClosed = true;
    if (this.#zstd === undefined || this.#context === undefined) return;
    this.#zstd.freeContext(this.#context);
    this.#context = undefined;
  }
}

function openContext(zstd: Library): Context {
  const context = zstd.createContext();
  if (context === null) throw new DaemonError("resource-exhausted", "zstd: no memory");
  checked(zstd, zstd.setParameter(context, D_WINDOW_LOG_MAX, WINDOW_LOG_MAX));
  return context;
}
