/** What is fuzzed: a parser behind one function, and valid inputs to begin from. */
import { DaemonError } from "../../src/base/errors.ts";

export interface FuzzTarget {
  readonly name: string;
  /** Valid inputs; the same ones at every call. */
  seeds(): readonly Uint8Array[];
  /** Returns: the input is accepted. Throws a DaemonError: it is refused. All else is a defect. */
  run(bytes: Uint8Array): Promise<void> | void;
  /** Makes checksums and lengths right again, so that mutation reaches what they guard. */
  repair?(bytes: Buffer): Buffer;
  /** Longer inputs are cut; INPUT_BYTES_MAX unless told. */
  readonly inputBytesMax?: number;
}

export const INPUT_BYTES_MAX = 64 * 1024;

/** Does one of several reads of an input: that it is refused does not end the run. */
export function tolerate<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (error instanceof DaemonError) return undefined;
    throw error;
  }
}

export async function tolerateAsync<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof DaemonError) return undefined;
    throw error;
  }
}

/** Text inputs are UTF-8 with whatever mutation made of it. */
export function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

/** The input in pieces, as a socket or a disk would bring it; their size depends on the input. */
export function* piecesOf(bytes: Uint8Array): Generator<Buffer> {
  const size = 1 + ((bytes.length * 131 + (bytes.at(-1) ?? 0)) % 1500);
  for (let start = 0; start < bytes.length; start += size) {
    yield Buffer.from(bytes.subarray(start, start + size));
  }
}

export async function* asyncPiecesOf(bytes: Uint8Array): AsyncGenerator<Buffer> {
  yield* piecesOf(bytes);
}
