/** One request for blocks under way: its reply, checked frame by frame, as events in order. */
import type { Clock } from "../../base/clock.ts";
import { DaemonError, errorCode, errorMessage, systemErrorName } from "../../base/errors.ts";
import { FETCH_PRIORITY } from "../../block/index.ts";
import type { PeerRef } from "../peer-ref.ts";
import type { PeerConnections } from "./connections.ts";
import type { ExchangeCounters } from "./counters.ts";
import { FrameReader } from "./frame-reader.ts";
import type { ReplyEnd } from "./frame-reader.ts";
import { FRAME, decodeTick, malformedFrame } from "./frames.ts";
import type { FrameType } from "./frames.ts";
import type { LaneSlot } from "./lane.ts";
import { READER_BUFFER_BYTES_MAX, STREAM_PIECE_BYTES } from "./limits.ts";
import { MEDIA_TYPE, decodeError, encodeBlocksRequest } from "./protocol.ts";
import type { BlockRange, BlocksRequest } from "./protocol.ts";
import { WaitBook } from "./wait-book.ts";

/** From a reply's last block to its end. */
const LINGER_MS = 1000;

export type BlockEvent =
  | { readonly kind: "data"; readonly index: number; readonly bytes: Buffer }
  | { readonly kind: "end"; readonly index: number }
  | { readonly kind: "not-here"; readonly index: number }
  | { readonly kind: "failed"; readonly index: number; readonly error: DaemonError };

/** How a stream ended; `refused` before it had begun. */
export type StreamEnd =
  | ReplyEnd
  | { readonly kind: "refused"; readonly error: DaemonError; readonly isConnection: boolean };

export interface BlockStreamOptions {
  readonly connections: PeerConnections;
  readonly waits: WaitBook;
  readonly counters: ExchangeCounters;
  readonly clock: Clock;
  readonly selfId: string;
  /** Something happened: events, a tick, the end. */
  readonly onWake: () => void;
}

export class BlockStream {
  readonly peer: PeerRef;
  readonly asked: readonly BlockRange[];
  readonly #layer: string;
  readonly #options: BlockStreamOptions;
  readonly #controller = new AbortController();
  readonly #events: BlockEvent[] = [];
  /** Data of the block at the cursor that this turn of the event loop brought. */
  #piece: Buffer | undefined;
  #pieceLength = 0;
  #isPassingOnPlanned = false;
  #buffered = 0;
  /** Position in `asked` of the block that comes next or is coming. */
  #cursor = 0;
  /** Bytes that came of the block at the cursor; undefined before its header. */
  #received: number | undefined;
  #reader: FrameReader | undefined;
  #slot: LaneSlot | undefined;
  #isPaused = false;
  #isSent = false;
  #signMs: number;
  #leaveWaits: (() => void)[] = [];
  /** Undefined while it lives. */
  end: StreamEnd | undefined;
  /** A tick said that the peer waits for us: circles are left at once. */
  isCircular = false;
  ticks = 0;

  constructor(peer: PeerRef, request: BlocksRequest, options: BlockStreamOptions) {
    this.peer = peer;
    this.asked = request.blocks;
    this.#layer = request.layer;
    this.#options = options;
    this.#signMs = options.clock.nowMs();
    for (const { index } of request.blocks) {
      const key = WaitBook.blockKey(request.layer, index);
      this.#leaveWaits.push(options.waits.ask(key, peer.id));
    }
    options.counters.add(peer.id, "requestsOut");
    void this.#run(request);
  }

  /** When the stream last showed that its peer lives. */
  get lastSignMs(): number {
    if (this.#isSent) return this.#signMs;
    // Waiting for a connection: the peer may show it on another.
    return Math.max(this.#signMs, this.#options.connections.lastSignMs(this.peer.id));
  }

  /** The next event, which stays. */
  peek(): BlockEvent | undefined {
    return this.#events[0];
  }

  shift(): void {
    const event = this.#events.shift();
    if (event?.kind === "data") this.#buffered -= event.bytes.length;
    if (this.#isPaused && this.#buffered < READER_BUFFER_BYTES_MAX / 2) {
      this.#isPaused = false;
      this.#signMs = this.#options.clock.nowMs(); // it was our silence, not the peer's
      this.#reader?.resume();
    }
  }

  /** Whether the block at `index` may still come of this stream. */
  mayBring(index: number): boolean {
    if (this.#events.some((event) => event.index === index)) return true;
    if (this.end !== undefined) return false;
    const at = this.asked[this.#cursor];
    return at !== undefined && at.index <= index && this.asked.some((each) => each.index === index);
  }

  /** Blocks that it said it has not got, which nobody has looked at yet. */
  missingAhead(): number[] {
    return this.#events.filter(({ kind }) => kind === "not-here").map(({ index }) => index);
  }

  /** Gives it up, without blame. */
  abort(): void {
    this.end ??= { kind: "broken", error: new DaemonError("canceled", "given up") };
    this.#events.length = 0;
    this.#piece = undefined;
    this.#pieceLength = 0;
    this.#reader?.close();
    this.#controller.abort(new DaemonError("canceled", "given up"));
    this.#leave();
  }

  async #run(request: BlocksRequest): Promise<void> {
    const { connections } = this.#options;
    const isReader = request.priority === FETCH_PRIORITY.reader;
    try {
      const { response, slot } = await connections.request(this.peer, {
        method: "POST",
        resource: "blocks",
        body: encodeBlocksRequest(request),
        contentType: MEDIA_TYPE.request,
        lane: isReader ? "demand" : "bulk",
        priority: request.priority,
        signal: this.#controller.signal,
        onSent: () => {
          this.#isSent = true;
          this.#signMs = this.#options.clock.nowMs();
        },
      });
      this.#slot = slot;
      this.#sign();
      if (this.end !== undefined) {
        response.destroy();
        return;
      }
      this.#reader = new FrameReader(response, {
        onSign: () => {
          this.#sign();
        },
        onFrame: (type, payload) => {
          this.#onFrame(type, payload);
        },
        onData: (piece) => {
          this.#onData(piece);
        },
        onEnd: (end) => {
          this.#finish(this.#judge(end));
        },
        isCopying: true,
      });
    } catch (error) {
      const reason = new DaemonError(errorCode(error), errorMessage(error));
      const cause = error instanceof Error ? error.cause : undefined;
      const isConnection =
        systemErrorName(cause) !== undefined || reason.code === "unauthenticated";
      this.#finish({ kind: "refused", error: reason, isConnection });
    }
    this.#options.onWake();
  }

  #sign(): void {
    this.#signMs = this.#options.clock.nowMs();
    this.#options.connections.noteSign(this.peer.id);
  }

  #judge(end: ReplyEnd): StreamEnd {
    if (end.kind !== "complete" || this.#cursor === this.asked.length) return end;
    return { kind: "lied", error: malformedFrame("complete, without all that was asked") };
  }

  #finish(end: StreamEnd): void {
    if (this.end !== undefined) return;
    this.#passOn();
    this.end = end;
    this.#leave();
    this.#options.onWake();
  }

  #leave(): void {
    for (const leave of this.#leaveWaits) leave();
    this.#leaveWaits = [];
  }

  #onFrame(type: FrameType, payload: Buffer): void {
    if (type === FRAME.tick) {
      this.#onTick(payload);
      return;
    }
    this.#passOn();
    this.#slot?.unpark();
    const due = this.asked[this.#cursor];
    if (due === undefined || payload.length < 4 || payload.readUInt32BE(0) !== due.index) {
      throw malformedFrame("a block that is not due");
    }
    const { index } = due;
    if (type === FRAME.block) {
      const isRight = payload.length === 8 && payload.readUInt32BE(4) === due.end - due.start;
      if (!isRight || this.#received !== undefined) throw malformedFrame("a block's head");
      this.#received = 0;
    } else if (type === FRAME.end) {
      if (this.#received !== due.end - due.start) throw malformedFrame("a block's end too early");
      this.#answered({ kind: "end", index });
      this.#options.counters.add(this.peer.id, "blocksIn");
    } else if (type === FRAME.notHere) {
      if (this.#received !== undefined) throw malformedFrame("a block half here");
      this.#answered({ kind: "not-here", index });
    } else if (type === FRAME.failed) {
      if (this.#received !== undefined) throw malformedFrame("a block half failed");
      const error = decodeError(payload.subarray(4), this.peer.id);
      this.#answered({ kind: "failed", index, error });
    } else {
      throw malformedFrame(`frame type ${type} among blocks`);
    }
  }

  #onTick(payload: Buffer): void {
    const ids = decodeTick(payload);
    this.ticks += 1;
    this.#slot?.park();
    this.#options.counters.add(this.peer.id, "ticksIn");
    const due = this.asked[this.#cursor];
    if (due !== undefined) this.#heard(due.index, ids);
    if (ids.includes(this.#options.selfId)) this.isCircular = true;
    this.#options.onWake();
  }

  #heard(index: number, ids: readonly string[]): void {
    this.#options.waits.heard(WaitBook.blockKey(this.#layer, index), this.peer.id, ids);
  }

  /** Copies: what comes is a view of the connection's buffer. */
  #onData(bytes: Buffer): void {
    const due = this.asked[this.#cursor];
    if (due === undefined || this.#received === undefined) throw malformedFrame("stray data");
    const left = due.end - due.start - this.#received;
    if (bytes.length > left) throw malformedFrame("more than the block");
    this.#slot?.unpark();
    this.#received += bytes.length;
    this.#buffered += bytes.length;
    for (let at = 0; at < bytes.length;) {
      this.#piece ??= Buffer.allocUnsafeSlow(Math.min(left - at, STREAM_PIECE_BYTES));
      const length = Math.min(bytes.length - at, this.#piece.length - this.#pieceLength);
      bytes.copy(this.#piece, this.#pieceLength, at, at + length);
      this.#pieceLength += length;
      at += length;
      if (this.#pieceLength === this.#piece.length) this.#passOn();
    }
    this.#planPassingOn();
    if (this.#buffered >= READER_BUFFER_BYTES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      this.#reader?.pause();
    }
  }

  /** TLS brings records of 16 KiB; what one turn brings goes on as one piece. */
  #planPassingOn(): void {
    if (this.#piece === undefined || this.#isPassingOnPlanned) return;
    this.#isPassingOnPlanned = true;
    setImmediate(() => {
      this.#isPassingOnPlanned = false;
      this.#passOn();
    });
  }

  /** Makes one event of the data that came. */
  #passOn(): void {
    const due = this.asked[this.#cursor];
    const piece = this.#piece;
    if (piece === undefined || due === undefined || this.#pieceLength === 0) return;
    let bytes = piece.subarray(0, this.#pieceLength);
    // Pieces are kept until their block is whole: a slow peer's must not hold much more than they
    // are.
    if (2 * bytes.length < piece.length) bytes = Buffer.from(bytes);
    else this.#piece = undefined;
    this.#pieceLength = 0;
    this.#options.counters.add(this.peer.id, "bytesIn", bytes.length);
    this.#push({ kind: "data", index: due.index, bytes });
  }

  #answered(event: BlockEvent): void {
    this.#cursor += 1;
    this.#received = undefined;
    this.#piece = undefined;
    this.#push(event);
    if (this.#cursor < this.asked.length) return;
    // The end of the reply is all that is due: who keeps that back holds a connection for nothing.
    this.#options.clock.timer(LINGER_MS, () => {
      if (this.end === undefined) this.#reader?.close();
    });
  }

  #push(event: BlockEvent): void {
    this.#events.push(event);
    this.#options.onWake();
  }
}
