/**
 * Filling the cache during a map-making pass: the pass runs in a child process and writes the tar
 * stream, and the blob that it reads, to files of its own; when its digests are proved the parent
 * adopts the files.
 */
import { nodeFillFile } from "./fill-file.ts";
import type { FillFile } from "./fill-file.ts";
import { FILL_WRITE_BYTES } from "./limits.ts";

/** What the parent tells the child: where to write, and how much at most. Plain data. */
export interface FillPlan {
  readonly path: string;
  readonly bytesMax: number;
}

/** Both streams of one layer. */
export interface LayerFillPlan extends FillPlan {
  /** For the blob as it is read; undefined where it is not kept. */
  readonly blob: FillPlan | undefined;
}

/**
 * Writes a stream from its start. What does not fit `bytesMax` or the disk is dropped: the
 * first `keptBytes` are kept. Calls must not overlap.
 */
export class FillWriter implements AsyncDisposable {
  readonly #file: FillFile;
  readonly #bytesMax: number;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #written = 0;
  #isFull = false;

  constructor(file: FillFile, bytesMax: number) {
    this.#file = file;
    this.#bytesMax = bytesMax;
  }

  /** False when nothing more will be kept: the caller may stop calling. */
  get isKeeping(): boolean {
    return !this.#isFull;
  }

  /** Resolves when the caller may go on; the bytes must not change before that. */
  async write(bytes: Uint8Array): Promise<void> {
    if (this.#isFull || bytes.length === 0) return;
    // A copy: pieces are usually views of a buffer that the decoder uses again.
    this.#pending.push(Uint8Array.prototype.slice.call(bytes));
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes >= FILL_WRITE_BYTES) await this.#flush();
  }

  /** The number of bytes kept, from the start of the stream. */
  async finish(): Promise<{ readonly keptBytes: number }> {
    await this.#flush();
    return { keptBytes: this.#written };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }

  async #flush(): Promise<void> {
    const bytes = Buffer.concat(this.#pending, this.#pendingBytes);
    this.#pending = [];
    this.#pendingBytes = 0;
    if (this.#isFull || bytes.length === 0) return;
    const fitting = bytes.subarray(0, Math.max(0, this.#bytesMax - this.#written));
    this.#isFull = fitting.length < bytes.length;
    if (fitting.length === 0) return;
    if (await this.#file.write(fitting, this.#written)) this.#written += fitting.length;
    else this.#isFull = true;
  }
}

/** In the child process: opens the file that the parent planned. */
export async function openFill(plan: FillPlan): Promise<FillWriter> {
  return new FillWriter(await nodeFillFile(plan.path), plan.bytesMax);
}
