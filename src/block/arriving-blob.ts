/**
 * One block's blob bytes while they arrive, for any number of readers besides the read path itself:
 * cut-through. There is one buffer, whoever reads; a reader who does not read holds nothing up.
 *
 * A request that breaks or brings wrong bytes is made again elsewhere. The new attempt overwrites
 * the same buffer; where it brings other bytes than a reader was given before, that reader ends
 * with `data-loss`. Whoever had not come so far notices nothing.
 */
import { DaemonError } from "../base/errors.ts";
import { onAbort, throwIfAborted } from "../base/abort.ts";
import { RELAY_PIECE_BYTES_MAX } from "./limits.ts";
import type { BlockSink } from "./split-blocks.ts";

/** The blob bytes of one block, for another node. */
export interface BlobTap {
  /** Blob bytes of the block. */
  readonly length: number;
  /** In order, as they come, from the first; to be read once. The caller does not change them. */
  readonly pieces: AsyncIterable<Uint8Array>;
  /**
   * Resolves when all that `pieces` gives has the block's digest. Rejects with `data-loss` when
   * wrong bytes were given, else with the reason why the rest does not come.
   */
  readonly verdict: Promise<void>;
}

interface Reader {
  position: number;
  error: DaemonError | undefined;
  isRight: boolean;
  readonly settle: (error: DaemonError | undefined) => void;
}

export class ArrivingBlob implements BlockSink {
  readonly length: number;
  #bytes: Uint8Array | undefined;
  /** Bytes that the attempt under way has brought. */
  #filled = 0;
  /** Set once: the digest is right. */
  #isRight = false;
  #error: DaemonError | undefined;
  readonly #readers = new Set<Reader>();
  #waiting: (() => void)[] = [];

  constructor(length: number) {
    this.length = length;
  }

  /** Verified bytes, all here. */
  static of(bytes: Uint8Array): ArrivingBlob {
    const blob = new ArrivingBlob(bytes.length);
    blob.verified(bytes);
    return blob;
  }

  /** The buffer, made when the first byte comes. */
  get bytes(): Uint8Array {
    this.#bytes ??= Buffer.allocUnsafeSlow(this.length);
    return this.#bytes;
  }

  /** Open taps. */
  get taps(): number {
    return this.#readers.size;
  }

  /** In order from 0; at 0 a new attempt begins. Copies. */
  write(offset: number, part: Uint8Array): void {
    if (this.#isRight || this.#error !== undefined) return;
    const { bytes } = this;
    this.#compare(bytes, offset, part);
    bytes.set(part, offset);
    this.#filled = offset + part.length;
    this.#wake();
  }

  /** The attempt has failed: nothing more of it is given to anybody. */
  restart(): void {
    this.#filled = 0;
  }

  /** The bytes have the block's digest: what `write` has put together, or others' in its place. */
  verified(bytes: Uint8Array): void {
    if (this.#isRight || this.#error !== undefined) return;
    if (bytes !== this.#bytes) {
      if (this.#bytes !== undefined) this.#compare(this.#bytes, 0, bytes);
      this.#bytes = bytes;
    }
    this.#filled = this.length;
    this.#isRight = true;
    for (const reader of [...this.#readers]) reader.settle(undefined);
    this.#wake();
  }

  /** The bytes will not come. */
  fail(error: DaemonError): void {
    if (this.#isRight || this.#error !== undefined) return;
    this.#error = error;
    for (const reader of [...this.#readers]) reader.settle(error);
    this.#wake();
  }

  /**
   * A reader from the first byte on. `onVerdict` runs once, when its verdict is known or it has
   * left; `onEnd` once, when it needs the buffer no more: it was read to the end, left or failed.
   */
  tap(
    signal: AbortSignal,
    events: { readonly onVerdict: () => void; readonly onEnd: () => void },
  ): BlobTap {
    throwIfAborted(signal);
    let resolve: () => void = () => undefined;
    let reject: (error: DaemonError) => void = () => undefined;
    const verdict = new Promise<void>((onRight, onWrong) => {
      resolve = onRight;
      reject = onWrong;
    });
    // Not everybody waits for it.
    verdict.catch(() => undefined);
    let isSettled = false;
    const reader: Reader = {
      position: 0,
      error: undefined,
      isRight: false,
      settle: (error) => {
        if (isSettled) return;
        isSettled = true;
        if (error === undefined) {
          reader.isRight = true;
          resolve();
        } else {
          reader.error = error;
          reject(error);
        }
        events.onVerdict();
        if (error !== undefined || reader.position === this.length) end();
      },
    };
    const stopListening = onAbort(signal, (reason) => {
      reader.settle(reason);
      reader.error ??= reason;
      end();
      this.#wake();
    });
    let isOver = false;
    const end = (): void => {
      if (isOver) return;
      isOver = true;
      stopListening();
      this.#readers.delete(reader);
      events.onEnd();
    };
    this.#readers.add(reader);
    if (this.#isRight) reader.settle(undefined);
    else if (this.#error !== undefined) reader.settle(this.#error);
    return { length: this.length, pieces: this.#read(reader, end), verdict };
  }

  async *#read(reader: Reader, end: () => void): AsyncGenerator<Uint8Array> {
    try {
      while (reader.position < this.length) {
        if (reader.error !== undefined) throw reader.error;
        const { position } = reader;
        if (this.#filled <= position) {
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
          continue;
        }
        reader.position = Math.min(this.#filled, position + RELAY_PIECE_BYTES_MAX);
        yield this.bytes.subarray(position, reader.position);
      }
      if (reader.isRight) end();
    } finally {
      if (reader.position < this.length) {
        reader.settle(new DaemonError("canceled", "the block's reader has left"));
        end();
      }
    }
  }

  /** Ends the readers who were given other bytes than these. */
  #compare(known: Uint8Array, offset: number, part: Uint8Array): void {
    let given = 0;
    for (const { position } of this.#readers) given = Math.max(given, position);
    const length = Math.min(given - offset, part.length);
    if (length <= 0) return;
    const before = known.subarray(offset, offset + length);
    if (Buffer.compare(before, part.subarray(0, length)) === 0) return;
    const differs = offset + before.findIndex((byte, at) => byte !== part[at]);
    for (const reader of [...this.#readers]) {
      if (reader.position <= differs) continue;
      const text = `wrong bytes from ${differs} of ${this.length} on were passed on`;
      reader.settle(new DaemonError("data-loss", text));
    }
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume();
  }
}
