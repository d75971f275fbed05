/**
 * One block on its way to one child: passed on as it arrives, its last bytes held back until the
 * digest is right. A child that is too slow falls behind into a buffer of two blocks; beyond that
 * it leaves the block's flight, which waits for nobody, and has the block read again when stored.
 */
import { abortReason, onAbort, raceAbort } from "../../base/abort.ts";
import { DaemonError, withContext } from "../../base/errors.ts";
import type { FrameSender } from "./frame-sender.ts";
import { FRAME, indexPayload } from "./frames.ts";
import { CHILD_BUFFER_BYTES_MAX, CHILD_BUFFER_BYTES_MIN, HOLD_BACK_BYTES } from "./limits.ts";
import type { ProvidedBlock } from "./providers.ts";

export interface BlockSendOptions {
  readonly index: number;
  readonly length: number;
  readonly sender: FrameSender;
  readonly signal: AbortSignal;
  /** Opens the block again, from its first byte. */
  readonly reopen: () => Promise<ProvidedBlock | undefined>;
}

export class BlockSend {
  readonly #options: BlockSendOptions;
  /** Bytes that came in, of the present iteration. */
  #received = 0;
  /** Bytes given to the sender or waiting for it: later iterations begin behind these. */
  #taken = 0;
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  readonly #tail: Buffer;
  #tailLength = 0;
  #onDrained: (() => void) | undefined;
  /** The child was too slow to follow the flight. */
  hasFallenBehind = false;

  constructor(options: BlockSendOptions) {
    this.#options = options;
    this.#tail = Buffer.allocUnsafe(Math.min(HOLD_BACK_BYTES, options.length));
  }

  /** Rejects when the block is wrong or lost: the reply has to be cut off then. */
  async run(provided: ProvidedBlock): Promise<void> {
    const { sender, index, length } = this.#options;
    sender.frame(FRAME.block, indexPayload(index, length));
    const isWhole = await this.#follow(provided);
    if (!isWhole) {
      this.hasFallenBehind = true;
      await this.#verdict(provided);
      await this.#drained();
      await this.#readAgain();
    }
    await this.#drained();
    sender.data(this.#tail.subarray(0, this.#tailLength));
    sender.frame(FRAME.end, indexPayload(index));
  }

  /** Takes pieces as fast as they come; false when the child fell too far behind. */
  async #follow(provided: ProvidedBlock): Promise<boolean> {
    const bufferMax = Math.min(
      Math.max(2 * this.#options.length, CHILD_BUFFER_BYTES_MIN),
      CHILD_BUFFER_BYTES_MAX,
    );
    for await (const piece of abortable(provided.pieces, this.#options.signal)) {
      this.#take(piece);
      if (this.#queued > bufferMax) return false;
    }
    this.#checkWhole();
    await this.#verdict(provided);
    return true;
  }

  /** What the child has not got yet, now at its own pace. */
  async #readAgain(): Promise<void> {
    const provided = await this.#options.reopen();
    if (provided === undefined) throw new DaemonError("unavailable", "the block was dropped");
    provided.verdict.catch(() => undefined);
    this.#received = 0;
    this.#tailLength = 0;
    for await (const piece of abortable(provided.pieces, this.#options.signal)) {
      this.#take(piece);
      if (this.#queued > 0) await this.#drained();
    }
    this.#checkWhole();
    await this.#verdict(provided);
  }

  async #verdict(provided: ProvidedBlock): Promise<void> {
    try {
      await raceAbort(provided.verdict, this.#options.signal);
    } catch (error) {
      throw withContext(error, `block ${this.#options.index} is not to be passed on`);
    }
  }

  #checkWhole(): void {
    if (this.#received === this.#options.length) return;
    const { index, length } = this.#options;
    throw new DaemonError("data-loss", `block ${index}: ${this.#received} of ${length} bytes`);
  }

  #take(piece: Uint8Array): void {
    const { length } = this.#options;
    const start = this.#received;
    this.#received += piece.length;
    if (this.#received > length) throw new DaemonError("data-loss", "the block is too long");
    const held = length - this.#tail.length;
    // Before `held` it goes out, unless an earlier iteration brought it; the rest is kept.
    const from = Math.max(0, this.#taken - start);
    const to = Math.min(piece.length, held - start);
    if (to > from) this.#give(piece.subarray(from, to));
    if (this.#received > held) {
      const kept = piece.subarray(Math.max(0, held - start));
      this.#tail.set(kept, this.#tailLength);
      this.#tailLength += kept.length;
    }
  }

  #give(bytes: Uint8Array): void {
    const { sender } = this.#options;
    this.#taken += bytes.length;
    if (this.#queued === 0 && sender.isReady) {
      sender.data(bytes);
      return;
    }
    this.#queue.push(Buffer.from(bytes));
    this.#queued += bytes.length;
    if (this.#queue.length === 1) this.#await();
  }

  #await(): void {
    this.#options.sender.whenReady(() => {
      this.#drain();
    });
  }

  #drain(): void {
    const { sender } = this.#options;
    while (this.#queue.length > 0 && sender.isReady) {
      const piece = this.#queue.shift();
      if (piece === undefined) break;
      this.#queued -= piece.length;
      sender.data(piece);
    }
    if (this.#queue.length > 0) {
      this.#await();
      return;
    }
    this.#onDrained?.();
  }

  /** Resolves when all that is queued has gone. */
  async #drained(): Promise<void> {
    if (this.#queue.length === 0) return;
    const drained = new Promise<void>((resolve) => {
      this.#onDrained = resolve;
    });
    await raceAbort(drained, this.#options.signal);
    this.#onDrained = undefined;
  }
}

/** The pieces until the signal aborts, even if their source does not listen to it. */
async function* abortable(
  pieces: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  if (signal.aborted) return;
  const iterator = pieces[Symbol.asyncIterator]();
  let abort: ((error: DaemonError) => void) | undefined;
  const stop = onAbort(signal, (reason) => abort?.(reason));
  try {
    for (;;) {
      // Not a race with one promise of the abort: each would leave something behind at it.
      const step = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        abort = reject;
        if (signal.aborted) reject(abortReason(signal));
        iterator.next().then(resolve, reject);
      });
      if (step.done === true) return;
      yield step.value;
    }
  } finally {
    stop();
    // Not awaited: a source that is stuck would answer only after its own wait.
    iterator.return?.().catch(() => undefined);
  }
}
