/**
 * The asking side of connections: one request and its reply at a time on each, which is kept for
 * the next. What a connection brings is read into one buffer that all of them share and passed on
 * at once, so that receiving makes no garbage.
 */
import { EventEmitter } from "node:events";
import { connect as connectClear } from "node:net";
import type { OnReadOpts, Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { ConnectionOptions } from "node:tls";
import { abortReason, onAbort } from "../../base/abort.ts";
import { DaemonError, errorMessage } from "../../base/errors.ts";
import { CLIENT_KEEP_ALIVE_MS, LANE_FLOWING_MAX } from "./limits.ts";
import { ReplyParser } from "./reply-parser.ts";
import type { ReplyHead } from "./reply-parser.ts";

/** What is read of a connection at once: more than TLS gives (16 KiB), for those without. */
const READ_BYTES = 128 * 1024;
/** Printable ASCII: nothing else may be in a request's line. */
const TARGET = /^[\x21-\x7e]+$/;

export interface WireRequest {
  readonly method: "GET" | "POST";
  readonly target: string;
  readonly body?: Uint8Array;
  readonly contentType?: string;
}

/** Who takes a reply's body. */
export interface BodyReader {
  /** A view, valid during the call. */
  onBytes(bytes: Buffer): void;
  /** The reply is complete. */
  onEnd(): void;
  /** It broke off. */
  onLost(): void;
}

/** Nobody looks at what comes. */
const NOBODY: BodyReader = {
  onBytes: () => undefined,
  onEnd: () => undefined,
  onLost: () => undefined,
};

/**
 * A reply whose head is here. Its body waits for `read`. Emits `close` once, when it is over and
 * its reader knows.
 */
export class WireReply extends EventEmitter {
  readonly statusCode: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly #connection: WireConnection;
  #reader: BodyReader | undefined;
  /** Came before there was a reader. */
  #early: Buffer[] = [];
  #state: "open" | "complete" | "lost" = "open";
  #isClosed = false;

  constructor({ status, headers }: ReplyHead, connection: WireConnection) {
    super();
    this.statusCode = status;
    this.headers = headers;
    this.#connection = connection;
  }

  get complete(): boolean {
    return this.#state === "complete";
  }

  /** The body's bytes from the first on, to one reader. */
  read(reader: BodyReader): void {
    if (this.#reader !== undefined) throw new DaemonError("internal", "the reply is being read");
    this.#reader = reader;
    const early = this.#early;
    this.#early = [];
    if (this.#state === "open" && early.length > 0) this.#connection.resume();
    for (const bytes of early) reader.onBytes(bytes);
    if (this.#state !== "open") this.#tell(reader);
  }

  /** The whole body; `data-loss` when it is longer, `unavailable` when it breaks off. */
  async bytes(bytesMax: number): Promise<Buffer> {
    return new Promise<Buffer>((resolve, reject) => {
      const pieces: Buffer[] = [];
      let length = 0;
      this.read({
        onBytes: (bytes) => {
          length += bytes.length;
          if (length <= bytesMax) pieces.push(Buffer.from(bytes));
          else {
            reject(new DaemonError("data-loss", `a reply of more than ${bytesMax} bytes`));
            this.destroy();
          }
        },
        onEnd: () => {
          resolve(Buffer.concat(pieces));
        },
        onLost: () => {
          reject(new DaemonError("unavailable", "the reply broke off"));
        },
      });
    });
  }

  pause(): void {
    if (this.#state === "open") this.#connection.pause();
  }

  resume(): void {
    if (this.#reader === undefined) this.read(NOBODY);
    if (this.#state === "open") this.#connection.resume();
  }

  /** Gives up what has not come; with it goes the connection. */
  destroy(): void {
    if (this.#state === "open") this.#connection.destroy();
    if (this.#reader !== undefined) return;
    this.#early = [];
    this.#state = "lost";
    this.#close();
  }

  /** For the connection. */
  take(bytes: Buffer): void {
    if (this.#reader !== undefined) {
      this.#reader.onBytes(bytes);
      return;
    }
    this.#early.push(Buffer.from(bytes));
    this.#connection.pause();
  }

  /** For the connection. */
  finish(state: "complete" | "lost"): void {
    if (this.#state !== "open") return;
    this.#state = state;
    // Often it is all here with its head, before anybody could read it or listen.
    if (this.#reader !== undefined) this.#tell(this.#reader);
  }

  #tell(reader: BodyReader): void {
    if (this.#state === "complete") reader.onEnd();
    else reader.onLost();
    this.#close();
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.emit("close");
  }
}

/** What became of a connection before the reply's head was here. */
type Waiter = (outcome: WireReply | Error) => void;

class WireConnection {
  readonly #pool: WirePool;
  readonly #socket: Socket;
  readonly #parser: ReplyParser;
  #waiter: Waiter | undefined;
  #reply: WireReply | undefined;
  #isKept = true;
  #isPaused = false;
  #error: Error | undefined;

  constructor(pool: WirePool, open: (onread: OnReadOpts) => Socket, buffer: Buffer) {
    this.#pool = pool;
    this.#parser = new ReplyParser({
      onHead: (head) => {
        this.#isKept = head.isKept;
        this.#reply = new WireReply(head, this);
        this.#settle(this.#reply);
      },
      onBody: (bytes) => {
        this.#reply?.take(bytes);
      },
      onEnd: () => {
        this.#complete();
      },
    });
    this.#socket = open({
      buffer,
      callback: (length) => {
        this.#push(buffer.subarray(0, length));
        return !this.#isPaused;
      },
    });
    this.#socket.setNoDelay(true);
    this.#socket.on("error", (error) => {
      this.#error ??= error;
    });
    // The other side sends no more: nothing can be answered here.
    this.#socket.on("end", () => this.#socket.destroy());
    this.#socket.on("timeout", () => this.#socket.destroy());
    this.#socket.on("close", () => {
      this.#closed();
    });
  }

  get isUsable(): boolean {
    return !this.#socket.destroyed && this.#socket.writable;
  }

  send(request: WireRequest, waiter: Waiter): void {
    this.#waiter = waiter;
    this.#parser.expect();
    this.#socket.setTimeout(0);
    this.#socket.ref();
    this.#socket.cork();
    this.#socket.write(headOf(request), "latin1");
    if (request.body !== undefined) this.#socket.write(request.body);
    this.#socket.uncork();
  }

  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.#socket.resume();
  }

  destroy(error?: Error): void {
    this.#error ??= error;
    this.#parser.stop();
    this.#socket.destroy();
    // At once: whoever gave it up waits for nothing more.
    this.#closed();
  }

  /** Kept for the next request, for a while. */
  rest(): void {
    this.resume();
    this.#socket.setTimeout(CLIENT_KEEP_ALIVE_MS);
    this.#socket.unref();
  }

  #push(bytes: Buffer): void {
    try {
      this.#parser.push(bytes);
    } catch (error) {
      this.destroy(Object.assign(new Error(errorMessage(error)), { code: "EPROTO" }));
    }
  }

  #complete(): void {
    const reply = this.#reply;
    this.#reply = undefined;
    if (this.#isKept) this.#pool.keep(this);
    else this.#socket.destroy();
    reply?.finish("complete");
  }

  #closed(): void {
    this.#pool.forget(this);
    this.#settle(this.#error ?? brokenOff());
    const reply = this.#reply;
    this.#reply = undefined;
    reply?.finish("lost");
  }

  #settle(outcome: WireReply | Error): void {
    const waiter = this.#waiter;
    this.#waiter = undefined;
    waiter?.(outcome);
  }
}

export interface WirePoolOptions {
  readonly host: string;
  readonly port: number;
  /** Undefined: without TLS. */
  readonly tls: ConnectionOptions | undefined;
  /** Shared by connections: what it holds is passed on before another reads. */
  readonly buffer: Buffer;
}

/** Connections of one kind to one peer. */
export class WirePool {
  readonly #options: WirePoolOptions;
  /** The one that was used last comes last. */
  readonly #idle: WireConnection[] = [];
  readonly #all = new Set<WireConnection>();
  /** The TLS session that the next connection resumes. */
  #session: Buffer | undefined;

  constructor(options: WirePoolOptions) {
    this.#options = options;
  }

  static readBuffer(): Buffer {
    return Buffer.allocUnsafeSlow(READ_BYTES);
  }

  /**
   * Resolves when the reply's head is here; an abort ends the request, and the reply as well.
   * Rejects with the error of the connection. `onSent`: it has a connection.
   */
  async send(
    request: WireRequest,
    options: { readonly signal: AbortSignal; readonly onSent: () => void },
  ): Promise<WireReply> {
    const { signal, onSent } = options;
    if (!TARGET.test(request.target)) throw new DaemonError("invalid-argument", "odd target");
    for (;;) {
      const reused = this.#takeIdle();
      try {
        return await this.#exchange(reused ?? this.#open(), request, { signal, onSent });
      } catch (error) {
        // An idle connection that the peer closed just as we used it says nothing about the peer;
        // neither do those that lay beside it.
        if (reused === undefined || error instanceof DaemonError || !isBrokenOff(error))
          throw error;
        for (const connection of this.#idle.splice(0)) connection.destroy();
      }
    }
  }

  /** Ends everything under way. */
  destroy(): void {
    for (const connection of [...this.#all]) connection.destroy();
  }

  /** For a connection whose reply is complete. */
  keep(connection: WireConnection): void {
    if (!connection.isUsable || this.#idle.length >= LANE_FLOWING_MAX) {
      connection.destroy();
      return;
    }
    connection.rest();
    this.#idle.push(connection);
  }

  /** For a connection that is closed. */
  forget(connection: WireConnection): void {
    this.#all.delete(connection);
    const index = this.#idle.indexOf(connection);
    if (index >= 0) this.#idle.splice(index, 1);
  }

  #takeIdle(): WireConnection | undefined {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined || connection.isUsable) return connection;
      connection.destroy();
    }
  }

  #open(): WireConnection {
    const { buffer } = this.#options;
    const connection = new WireConnection(this, (onread) => this.#connect(onread), buffer);
    this.#all.add(connection);
    return connection;
  }

  #connect(onread: OnReadOpts): Socket {
    const { host, port, tls } = this.#options;
    if (tls === undefined) return connectClear({ host, port, onread });
    const session = this.#session === undefined ? {} : { session: this.#session };
    // `onread` is documented for tls.connect, and is not in its types.
    const options: ConnectionOptions & { onread: OnReadOpts } = {
      ...tls,
      ...session,
      host,
      port,
      onread,
    };
    const socket = connectTls(options);
    socket.on("session", (ticket) => {
      this.#session = ticket;
    });
    socket.once("error", () => {
      this.#session = undefined;
    });
    return socket;
  }

  async #exchange(
    connection: WireConnection,
    request: WireRequest,
    { signal, onSent }: { readonly signal: AbortSignal; readonly onSent: () => void },
  ): Promise<WireReply> {
    if (signal.aborted) {
      connection.destroy();
      throw abortReason(signal);
    }
    return new Promise<WireReply>((resolve, reject) => {
      let reply: WireReply | undefined;
      const stop = onAbort(signal, (reason) => {
        // With its reply complete the connection is another's.
        if (reply === undefined) connection.destroy(reason);
        else reply.destroy();
      });
      connection.send(request, (outcome) => {
        if (outcome instanceof WireReply) {
          reply = outcome;
          outcome.once("close", stop);
          resolve(outcome);
          return;
        }
        stop();
        reject(outcome);
      });
      onSent();
    });
  }
}

function headOf({ method, target, body, contentType }: WireRequest): string {
  const lines = [`${method} ${target} HTTP/1.1`, "host: faasnet"];
  if (contentType !== undefined) lines.push(`content-type: ${contentType}`);
  if (body !== undefined) lines.push(`content-length: ${body.length}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

function brokenOff(): Error {
  return Object.assign(new Error("the connection was closed"), { code: "ECONNRESET" });
}

function isBrokenOff(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown };
  return code === "ECONNRESET" || code === "EPIPE";
}
