/** Reads the frames of a reply from its connection, as fast as the owner takes them. */
import { DaemonError, errorCode, errorMessage } from "../../base/errors.ts";
import { FRAME, FrameDecoder, malformedFrame } from "./frames.ts";
import type { FrameSink } from "./frames.ts";
import type { WireReply } from "./wire.ts";

/** How a reply ended. `lied`: it broke the rules, and no honest peer does that. */
export type ReplyEnd =
  | { readonly kind: "complete" }
  | { readonly kind: "broken"; readonly error: DaemonError }
  | { readonly kind: "lied"; readonly error: DaemonError };

export interface FrameReaderHandlers extends FrameSink {
  /** Any bytes at all. */
  onSign(): void;
  /** Called once. */
  onEnd(end: ReplyEnd): void;
  /** `onData` copies of its view, which is valid during the call; else it may keep it. */
  readonly isCopying?: boolean;
}

export class FrameReader {
  readonly #response: WireReply;
  readonly #handlers: FrameReaderHandlers;
  #isDone = false;
  #hasEnded = false;

  constructor(response: WireReply, handlers: FrameReaderHandlers) {
    this.#response = response;
    this.#handlers = handlers;
    const decoder = new FrameDecoder({
      onFrame: (type, payload) => {
        if (this.#hasEnded) return;
        if (this.#isDone) throw malformedFrame("a frame behind the last one");
        if (type === FRAME.done) this.#isDone = true;
        else handlers.onFrame(type, payload);
      },
      onData: (piece) => {
        if (this.#hasEnded) return;
        if (this.#isDone) throw malformedFrame("data behind the last frame");
        handlers.onData(handlers.isCopying === true ? piece : Buffer.from(piece));
      },
    });
    response.read({
      onBytes: (bytes) => {
        if (this.#hasEnded) return;
        handlers.onSign();
        try {
          decoder.push(bytes);
        } catch (error) {
          const reason = new DaemonError(errorCode(error), errorMessage(error));
          this.#end({ kind: errorCode(error) === "data-loss" ? "lied" : "broken", error: reason });
          response.destroy();
        }
      },
      onEnd: () => {
        if (this.#isDone && decoder.isBetweenFrames) this.#end({ kind: "complete" });
        else this.#end({ kind: "broken", error: brokenOff() });
      },
      onLost: () => {
        this.#end({ kind: "broken", error: brokenOff() });
      },
    });
  }

  pause(): void {
    this.#response.pause();
  }

  resume(): void {
    this.#response.resume();
  }

  /** Gives the reply up; no handler is called any more. */
  close(): void {
    this.#hasEnded = true;
    if (!this.#response.complete || !this.#isDone) this.#response.destroy();
    else this.#response.resume();
  }

  #end(end: ReplyEnd): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#handlers.onEnd(end);
  }
}

function brokenOff(): DaemonError {
  return new DaemonError("unavailable", "the reply broke off");
}
