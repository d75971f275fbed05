/**
 * One unix-socket connection between two roles. Symmetric: either side may call the other.
 * A call ends with a result, an error, the caller's abort (told to the other side), or the loss
 * of the connection (`unavailable`).
 */
import type { Socket } from "node:net";
import { DaemonError, errorCode, errorMessage, isErrorCode } from "../base/errors.ts";
import { onAbort, throwIfAborted } from "../base/abort.ts";
import { systemClock } from "../base/clock.ts";
import {
  decodeRequest,
  decodeResponse,
  encodeFrame,
  encodeRequest,
  encodeResponse,
  FrameReader,
} from "./codec.ts";
import type { Envelope } from "./codec.ts";

/** Requests under way from the other side at once. */
export const INCOMING_CALLS_MAX = 4096;
/** Bytes written but not taken by the other side: beyond this it counts as lost. */
export const UNSENT_BYTES_MAX = 256 * 1024 * 1024;
/** How long closing waits for the other side to take what was written. */
export const CLOSE_FLUSH_MS_MAX = 1000;

export interface HandlerContext {
  /** Aborted when the caller leaves or the connection is lost. */
  readonly signal: AbortSignal;
  /** Sends an answer before the last one (methods that stream). */
  readonly item: (message: object) => void;
  readonly connection: ControlConnection;
}

/** Requests come decoded but unchecked: `unknown` until the handler has parsed them. */
export type Handler = (request: unknown, context: HandlerContext) => Promise<object>;
/** By method, `Service.Method`. */
export type Handlers = Readonly<Record<string, Handler>>;

export interface CallOptions {
  readonly signal: AbortSignal;
  readonly onItem?: (message: unknown) => void;
}

interface PendingCall {
  readonly method: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: DaemonError) => void;
  readonly onItem: ((message: unknown) => void) | undefined;
}

export class ControlConnection implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #handlers: Handlers;
  readonly #calls = new Map<number, PendingCall>();
  readonly #incoming = new Map<number, AbortController>();
  #nextId = 1;
  #isClosed = false;
  readonly closed: Promise<void>;

  constructor(socket: Socket, handlers: Handlers) {
    this.#socket = socket;
    this.#handlers = handlers;
    const reader = new FrameReader();
    socket.on("data", (piece: Buffer) => {
      try {
        for (const envelope of reader.push(piece)) this.#onEnvelope(envelope);
      } catch {
        socket.destroy();
      }
    });
    this.closed = new Promise((resolve) => {
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#onClose();
        resolve();
      });
    });
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The caller must parse the answer; it is decoded, not checked. */
  async call(method: string, request: object, options: CallOptions): Promise<unknown> {
    throwIfAborted(options.signal);
    if (this.#isClosed) throw new DaemonError("unavailable", `${method}: connection is closed`);
    const id = this.#nextId;
    this.#nextId = (this.#nextId % 0x7fff_ffff) + 1;
    const payload = encodeRequest(method, request);
    const frame = encodeFrame({ id, kind: "REQUEST", method, payload });
    return new Promise<unknown>((resolve, reject) => {
      const stopListening = onAbort(options.signal, (reason) => {
        this.#calls.delete(id);
        this.#send({ id, kind: "CANCEL" });
        reject(reason);
      });
      const settle = (): void => {
        this.#calls.delete(id);
        stopListening();
      };
      this.#calls.set(id, {
        method,
        resolve: (value) => {
          settle();
          resolve(value);
        },
        reject: (error) => {
          settle();
          reject(error);
        },
        onItem: options.onItem,
      });
      this.#write(frame);
    });
  }

  /** What was sent is delivered if the other side reads; calls under way are lost. */
  async [Symbol.asyncDispose](): Promise<void> {
    const cancelTimer = systemClock.timer(CLOSE_FLUSH_MS_MAX, () => this.#socket.destroy());
    this.#socket.destroySoon();
    await this.closed;
    cancelTimer();
  }

  #send(envelope: Partial<Envelope> & Pick<Envelope, "id" | "kind">): void {
    if (!this.#isClosed) this.#write(encodeFrame(envelope));
  }

  #write(frame: Buffer): void {
    if (this.#socket.destroyed) return; // its close event is on the way
    this.#socket.write(frame);
    if (this.#socket.writableLength > UNSENT_BYTES_MAX) this.#socket.destroy();
  }

  #onEnvelope(envelope: Envelope): void {
    switch (envelope.kind) {
      case "REQUEST":
        // The id of a call still under way: whom to answer or cancel would be a guess.
        if (this.#incoming.has(envelope.id)) this.#socket.destroy();
        else void this.#onRequest(envelope);
        return;
      case "CANCEL":
        this.#incoming.get(envelope.id)?.abort(new DaemonError("canceled", "the caller left"));
        return;
      default:
        this.#onAnswer(envelope);
    }
  }

  #onAnswer(envelope: Envelope): void {
    const call = this.#calls.get(envelope.id);
    if (call === undefined) return; // its caller left
    try {
      if (envelope.kind === "ERROR") {
        const code = isErrorCode(envelope.code) ? envelope.code : "internal";
        call.reject(new DaemonError(code, envelope.message));
      } else if (envelope.kind === "ITEM") {
        call.onItem?.(decodeResponse(call.method, envelope.payload));
      } else {
        call.resolve(decodeResponse(call.method, envelope.payload));
      }
    } catch (error) {
      this.#send({ id: envelope.id, kind: "CANCEL" });
      call.reject(new DaemonError("internal", `${call.method}: bad answer`, { cause: error }));
    }
  }

  /** Never rejects: every failure becomes an ERROR answer. */
  async #onRequest({ id, method, payload }: Envelope): Promise<void> {
    const controller = new AbortController();
    try {
      const handler = Object.hasOwn(this.#handlers, method) ? this.#handlers[method] : undefined;
      if (handler === undefined) {
        throw new DaemonError("unimplemented", `no such method: ${method}`);
      }
      if (this.#incoming.size >= INCOMING_CALLS_MAX) {
        throw new DaemonError("resource-exhausted", `over ${INCOMING_CALLS_MAX} calls under way`);
      }
      this.#incoming.set(id, controller);
      const answer = await handler(decodeRequest(method, payload), {
        signal: controller.signal,
        item: (message) => {
          this.#send({ id, kind: "ITEM", payload: encodeResponse(method, message) });
        },
        connection: this,
      });
      this.#send({ id, kind: "RESULT", payload: encodeResponse(method, answer) });
    } catch (error) {
      this.#send({ id, kind: "ERROR", code: errorCode(error), message: errorMessage(error) });
    } finally {
      this.#incoming.delete(id);
    }
  }

  #onClose(): void {
    this.#isClosed = true;
    const lost = new DaemonError("unavailable", "connection lost");
    for (const call of [...this.#calls.values()]) call.reject(lost);
    for (const controller of this.#incoming.values()) controller.abort(lost);
  }
}
