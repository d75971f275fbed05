/** The answer to one request for blocks: each in its turn, as it becomes available. */
import { onAbort } from "../../base/abort.ts";
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import { BlockSend } from "./block-send.ts";
import type { FrameSender } from "./frame-sender.ts";
import { FRAME, indexPayload } from "./frames.ts";
import { REPLY_OPEN_MAX } from "./limits.ts";
import type { MissBook } from "./miss-book.ts";
import { encodeError } from "./protocol.ts";
import type { BlockRange, BlocksRequest } from "./protocol.ts";
import type { BlockProvider, ProvidedBlock, WantedBlock } from "./providers.ts";
import { WaitBook } from "./wait-book.ts";

export interface BlockReplyOptions {
  readonly request: BlocksRequest;
  readonly sender: FrameSender;
  readonly provider: BlockProvider;
  readonly waits: WaitBook;
  readonly misses: MissBook;
  /** Whether a miss may be fetched for children at all: at the root always, elsewhere for two. */
  readonly mayFetch: "always" | "for-two" | "never";
  readonly signal: AbortSignal;
  readonly onBlock: (outcome: BlockOutcome) => void;
}

export type BlockOutcome = "sent" | "not-here" | "failed" | "cut-off" | "fell-behind";

type Opened =
  | { readonly kind: "block"; readonly provided: ProvidedBlock }
  | { readonly kind: "not-here" }
  | { readonly kind: "failed"; readonly error: unknown };

export class BlockReply {
  readonly #options: BlockReplyOptions;
  readonly #opened = new Map<number, Promise<Opened>>();
  readonly #leave = new Map<number, () => void>();
  #nextToOpen = 0;
  /** What the reply stands at, for ticks. */
  #current: string | undefined;

  constructor(options: BlockReplyOptions) {
    this.#options = options;
  }

  /** Whom the block that is due waits for. */
  get waitsFor(): readonly string[] {
    return this.#current === undefined ? [] : this.#options.waits.waitsFor(this.#current);
  }

  /** Ends or cuts off the reply; never rejects. */
  async run(): Promise<void> {
    const { request, sender } = this.#options;
    try {
      for (const block of request.blocks) {
        this.#openAhead(block);
        await this.#answer(block);
      }
      sender.finish();
    } catch {
      // Wrong or lost half-way, or the child has left: either way nothing more may follow.
      this.#options.onBlock("cut-off");
      sender.reset();
    } finally {
      for (const leave of this.#leave.values()) leave();
    }
  }

  /** All that are asked for are on their way at once, so that neighbours become one request. */
  #openAhead(until: BlockRange): void {
    const { blocks } = this.#options.request;
    while (this.#nextToOpen < blocks.length && this.#opened.size < REPLY_OPEN_MAX) {
      const block = blocks[this.#nextToOpen];
      if (block === undefined) return;
      this.#nextToOpen += 1;
      this.#opened.set(block.index, this.#open(block));
    }
    if (!this.#opened.has(until.index)) {
      throw new DaemonError("internal", `block ${until.index} was not opened`);
    }
  }

  /** Never rejects. */
  async #open(block: BlockRange): Promise<Opened> {
    const { request, provider, waits, misses, signal, mayFetch } = this.#options;
    const key = WaitBook.blockKey(request.layer, block.index);
    const asker = request.path.at(-1) ?? "";
    // We wait for the very member that asks: it is to look elsewhere, and so are we.
    if (waits.isWaitingFor(key, asker)) return { kind: "not-here" };
    this.#leave.set(block.index, waits.enter(key, request.path));
    try {
      const isWanted = mayFetch === "for-two" && misses.isWantedByOthers(key, asker);
      const provided = await provider.open(this.#want(block), {
        signal,
        priority: request.priority,
        mayFetch: mayFetch === "always" || isWanted,
      });
      if (provided === undefined) {
        misses.note(key, asker);
        return { kind: "not-here" };
      }
      // It may fail before its turn has come.
      provided.verdict.catch(() => undefined);
      if (provided.length !== block.end - block.start) {
        const what = `block ${block.index} has ${provided.length} bytes here`;
        return { kind: "failed", error: new DaemonError("invalid-argument", what) };
      }
      return { kind: "block", provided };
    } catch (error) {
      return { kind: "failed", error };
    }
  }

  #want({ index, start, end }: BlockRange): WantedBlock {
    const { layer, blob } = this.#options.request;
    return { layerId: layer, blobDigest: blob, block: index, start, end };
  }

  async #answer(block: BlockRange): Promise<void> {
    const { request, sender, signal, onBlock } = this.#options;
    this.#current = WaitBook.blockKey(request.layer, block.index);
    const opened = await this.#untilOpen(block);
    if (opened.kind === "not-here") {
      sender.frame(FRAME.notHere, indexPayload(block.index));
      onBlock("not-here");
    } else if (opened.kind === "failed") {
      const error = new DaemonError(errorCode(opened.error), errorMessage(opened.error));
      const payload = Buffer.concat([indexPayload(block.index), encodeError(error)]);
      sender.frame(FRAME.failed, payload);
      onBlock("failed");
    } else {
      const send = new BlockSend({
        index: block.index,
        length: block.end - block.start,
        sender,
        signal,
        reopen: async () => this.#reopen(block),
      });
      await send.run(opened.provided);
      onBlock(send.hasFallenBehind ? "fell-behind" : "sent");
    }
    this.#opened.delete(block.index);
    this.#leave.get(block.index)?.();
    this.#leave.delete(block.index);
  }

  /** A provider that does not listen to the signal is left alone. */
  async #untilOpen(block: BlockRange): Promise<Opened> {
    const { signal } = this.#options;
    const opened = this.#opened.get(block.index);
    if (opened === undefined) throw new DaemonError("internal", "not opened");
    if (signal.aborted) throw new DaemonError("canceled", "the child has left");
    return new Promise((resolve, reject) => {
      const stop = onAbort(signal, reject);
      void opened.then((value) => {
        stop();
        resolve(value);
      });
    });
  }

  async #reopen(block: BlockRange): Promise<ProvidedBlock | undefined> {
    const { provider, request, signal, mayFetch } = this.#options;
    return provider.open(this.#want(block), {
      signal,
      priority: request.priority,
      mayFetch: mayFetch !== "never",
    });
  }
}
