/**
 * Writes the frames of one reply: what comes in one turn of the event loop leaves in one write, so
 * that small pieces cost no system call each, and large ones are not kept.
 */
import type { ServerResponse } from "node:http";
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import { FETCH_PRIORITY } from "../../block/index.ts";
import type { FetchPriority } from "../../block/index.ts";
import { FRAME, FRAME_HEAD_BYTES, encodeFrame, encodeTick, writeFrameHead } from "./frames.ts";
import type { FrameType } from "./frames.ts";
import { CHILD_STALL_MS, DATA_BYTES_MAX, GIVE_WAY_MS, TICK_MS } from "./limits.ts";
import type { UploadLimiter } from "./upload.ts";

/** Data, its head, and small frames before and behind it. */
const CONTENT_BYTES = DATA_BYTES_MAX + 4096;
/**
 * A chunk of HTTP's chunked coding (RFC 9112 7.1) around the content: eight hex digits and CRLF,
 * and CRLF behind. Made here, since node:http writes each part of a chunk on its own, which costs
 * much.
 */
const CHUNK_HEAD_BYTES = 10;
const CRLF = "\r\n";
const CHUNK_BYTES = CHUNK_HEAD_BYTES + CONTENT_BYTES + CRLF.length;
/** The content's end in a full buffer. */
const CONTENT_END = CHUNK_HEAD_BYTES + CONTENT_BYTES;
/** Bytes handed to the connection that it has not taken yet, before we wait for it. */
const AHEAD_BYTES = 2 * DATA_BYTES_MAX;
const FREE_CHUNKS_MAX = 64;
/** Between two looks whether the child has all of a reader's bytes. */
const ACK_POLL_MS = 1;

/** Buffers that are used again: making one so large for every write costs more than filling it. */
export class ChunkPool {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES);
  }

  give(chunk: Buffer): void {
    if (this.#free.length < FREE_CHUNKS_MAX) this.#free.push(chunk);
  }
}

export interface FrameSenderOptions {
  readonly clock: Clock;
  readonly pool: ChunkPool;
  readonly limiter: UploadLimiter;
  readonly priority: FetchPriority;
  readonly onSent: (bytes: number) => void;
  /** Bytes that the connection has taken and the child has not got. */
  readonly unackedBytes: () => number;
  /** Whom the reply waits for, for its ticks. */
  readonly waitsFor: () => readonly string[];
  readonly onTick: () => void;
}

export class FrameSender implements Disposable {
  readonly #response: ServerResponse;
  readonly #options: FrameSenderOptions;
  #chunk: Buffer | undefined;
  /** Where the content that is there ends. */
  #length = CHUNK_HEAD_BYTES;
  /** Where the head of the data frame that is being filled stands. */
  #dataHead: number | undefined;
  #isFlushPlanned = false;
  /** Bytes of chunks that the connection has not taken yet. */
  #pending = 0;
  #lastWriteMs: number;
  #lastTakenMs: number;
  #onReady: (() => void) | undefined;
  #cancelTimer: (() => void) | undefined;
  #cancelDelay: (() => void) | undefined;
  /** While a reader's bytes are on their way, bulk gives way. */
  #endReader: (() => void) | undefined;
  #readerSinceMs = 0;
  #isPolling = false;
  #isClosed = false;

  constructor(response: ServerResponse, options: FrameSenderOptions) {
    this.#response = response;
    this.#options = options;
    this.#lastWriteMs = options.clock.nowMs();
    this.#lastTakenMs = this.#lastWriteMs;
    this.#arm();
  }

  /** Whether more data is welcome now. */
  get isReady(): boolean {
    if (this.#pending >= AHEAD_BYTES || this.#isClosed) return false;
    return this.#options.limiter.delayMs(this.#options.priority) === 0;
  }

  /** Calls back once when more data is welcome. Replaces an earlier callback. */
  whenReady(callback: () => void): void {
    this.#onReady = callback;
    this.#checkReady();
  }

  frame(type: FrameType, payload: Uint8Array): void {
    this.#append(encodeFrame(type, payload));
  }

  /** A frame that is encoded already; small. */
  #append(frame: Buffer): void {
    this.#closeData();
    if (CONTENT_END - this.#length < frame.length) this.flush();
    if (frame.length > CONTENT_BYTES) {
      const large = Buffer.allocUnsafe(CHUNK_HEAD_BYTES + frame.length + CRLF.length);
      frame.copy(large, CHUNK_HEAD_BYTES);
      this.#write(large, CHUNK_HEAD_BYTES + frame.length, () => undefined);
      return;
    }
    const chunk = this.#open();
    frame.copy(chunk, this.#length);
    this.#length += frame.length;
  }

  /** Copies the bytes. */
  data(piece: Uint8Array): void {
    for (let at = 0; at < piece.length;) {
      // The end of a data frame has to leave room for nothing else: small frames flush first.
      if (this.#dataHead === undefined) this.#beginData();
      const chunk = this.#open();
      const part = piece.subarray(at, at + CONTENT_END - this.#length);
      chunk.set(part, this.#length);
      this.#length += part.length;
      at += part.length;
      if (this.#length === CONTENT_END) this.flush();
    }
    this.#options.limiter.spend(piece.length);
    this.#options.onSent(piece.length);
  }

  /** Sends what is there. */
  flush(): void {
    this.#closeData();
    const chunk = this.#chunk;
    if (chunk === undefined || this.#length === CHUNK_HEAD_BYTES) return;
    const end = this.#length;
    this.#chunk = undefined;
    this.#length = CHUNK_HEAD_BYTES;
    this.#write(chunk, end, () => {
      this.#options.pool.give(chunk);
    });
  }

  /** Ends the reply in good order. */
  finish(): void {
    this.frame(FRAME.done, new Uint8Array());
    this.flush();
    this.#response.end();
    const endReader = this.#endReader;
    this.#endReader = undefined;
    this[Symbol.dispose]();
    this.#endReader = endReader; // its last bytes are still on their way
    if (this.#pending === 0) this.#untilArrived();
  }

  /**
   * Cuts the reply off, behind what is on its way: whole blocks among it need not be fetched again.
   * What the child has is incomplete, and it knows.
   */
  reset(): void {
    if (!this.#isClosed) this.flush();
    this[Symbol.dispose]();
    const { socket } = this.#response;
    if (socket === null) {
      this.#response.destroy();
      return;
    }
    socket.setTimeout(CHILD_STALL_MS, () => socket.destroy());
    socket.destroySoon();
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#cancelTimer?.();
    this.#cancelDelay?.();
    this.#letBulkGo();
    this.#onReady = undefined;
  }

  #open(): Buffer {
    this.#chunk ??= this.#options.pool.take();
    if (!this.#isFlushPlanned) {
      this.#isFlushPlanned = true;
      setImmediate(() => {
        this.#isFlushPlanned = false;
        if (!this.#isClosed) this.flush();
      });
    }
    return this.#chunk;
  }

  #beginData(): void {
    if (CONTENT_END - this.#length <= FRAME_HEAD_BYTES) this.flush();
    this.#open();
    this.#dataHead = this.#length;
    this.#length += FRAME_HEAD_BYTES;
  }

  #closeData(): void {
    if (this.#dataHead === undefined || this.#chunk === undefined) return;
    const length = this.#length - this.#dataHead - FRAME_HEAD_BYTES;
    writeFrameHead(this.#chunk, this.#dataHead, FRAME.data, length);
    this.#dataHead = undefined;
  }

  /** Writes a chunk whose content ends at `end`. */
  #write(chunk: Buffer, end: number, onTaken: () => void): void {
    const size = (end - CHUNK_HEAD_BYTES).toString(16).padStart(8, "0");
    chunk.write(`${size}${CRLF}`, 0, "latin1");
    chunk.write(CRLF, end, "latin1");
    const bytes = chunk.subarray(0, end + CRLF.length);
    const { clock, limiter, priority } = this.#options;
    this.#pending += bytes.length;
    this.#lastWriteMs = clock.nowMs();
    if (priority === FETCH_PRIORITY.reader && this.#endReader === undefined) {
      this.#endReader = limiter.beginReader();
      this.#readerSinceMs = this.#lastWriteMs;
    }
    if (this.#pending === bytes.length) this.#lastTakenMs = this.#lastWriteMs;
    const { socket } = this.#response;
    const taken = (): void => {
      this.#pending -= bytes.length;
      this.#lastTakenMs = clock.nowMs();
      if (this.#pending === 0) this.#untilArrived();
      onTaken();
      this.#checkReady();
    };
    // The next request of a connection may be here before node:http has let go of the last reply.
    if (socket !== null) socket.write(bytes, taken);
    else this.#response.write(chunk.subarray(CHUNK_HEAD_BYTES, end), taken);
  }

  /** The kernel has a reader's bytes; bulk behind them waits until the child has them too. */
  #untilArrived(): void {
    if (this.#endReader === undefined || this.#pending > 0 || this.#isPolling) return;
    const { clock, unackedBytes } = this.#options;
    const isLate = clock.nowMs() - this.#readerSinceMs >= GIVE_WAY_MS;
    if (isLate || unackedBytes() === 0) {
      this.#letBulkGo();
      return;
    }
    this.#isPolling = true;
    clock.timer(ACK_POLL_MS, () => {
      this.#isPolling = false;
      this.#untilArrived();
    });
  }

  #letBulkGo(): void {
    this.#endReader?.();
    this.#endReader = undefined;
  }

  #checkReady(): void {
    if (this.#onReady === undefined || this.#isClosed || this.#pending >= AHEAD_BYTES) return;
    this.#cancelDelay?.();
    this.#cancelDelay = undefined;
    const { limiter, clock, priority } = this.#options;
    const delayMs = limiter.delayMs(priority);
    if (delayMs > 0) {
      const check = (): void => {
        this.#checkReady();
      };
      const cancels = [clock.timer(delayMs, check), limiter.whenNoReader(check)];
      this.#cancelDelay = () => {
        for (const cancel of cancels) cancel();
      };
      return;
    }
    const callback = this.#onReady;
    this.#onReady = undefined;
    callback();
  }

  /** One timer for the whole reply: ticks, and the end of a child that takes nothing. */
  #arm(): void {
    const { clock } = this.#options;
    const sinceMs = clock.nowMs() - this.#lastWriteMs;
    this.#cancelTimer = clock.timer(Math.max(1, TICK_MS - sinceMs), () => {
      if (this.#isClosed) return;
      const nowMs = clock.nowMs();
      if (this.#pending === 0 && nowMs - this.#lastWriteMs >= TICK_MS) {
        this.#append(encodeTick(this.#options.waitsFor()));
        this.flush();
        this.#options.onTick();
      } else if (this.#pending > 0 && nowMs - this.#lastTakenMs >= CHILD_STALL_MS) {
        this.#response.destroy(
          new DaemonError("deadline-exceeded", `the child took nothing for ${CHILD_STALL_MS} ms`),
        );
        return;
      } else if (this.#pending > 0) {
        this.#lastWriteMs = nowMs; // it has something to read: no tick is needed
      }
      this.#arm();
    });
  }
}
