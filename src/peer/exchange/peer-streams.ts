/** Replies that are one stream, read: layer maps and fetch orders. */
import { abortReason, onAbort } from "../../base/abort.ts";
import { DaemonError } from "../../base/errors.ts";
import type { PeerReply } from "./connections.ts";
import { FrameReader } from "./frame-reader.ts";
import { FRAME, decodeTick, malformedFrame } from "./frames.ts";
import type { FrameType } from "./frames.ts";
import { MAP_BYTES_MAX, ORDER_POSITION_MAX, READER_BUFFER_BYTES_MAX } from "./limits.ts";
import { asRecord, decodeError } from "./protocol.ts";
import type { OrderEntry } from "./providers.ts";

const HEX_DIGEST = /^[0-9a-f]{64}$/;
/** Entries of a fetch order in one frame. */
const ENTRIES_MAX = 65_536;

export interface StreamHandlers {
  readonly signal: AbortSignal;
  readonly peerId: string;
  onSign(): void;
  /** Whom the peer waits for. */
  onTick(waitsFor: readonly string[]): void;
}

/** Items of a reply in order, with the sender held back while too many wait. */
class ItemStream<T> {
  readonly #items: { readonly value: T; readonly bytes: number }[] = [];
  readonly #signal: AbortSignal;
  #bytes = 0;
  #reader: FrameReader | undefined;
  #isPaused = false;
  #end: { readonly error: DaemonError | undefined } | undefined;
  #wake: (() => void) | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  attach(reader: FrameReader): void {
    this.#reader = reader;
  }

  push(value: T, bytes: number): void {
    this.#items.push({ value, bytes });
    this.#bytes += bytes;
    if (this.#bytes >= READER_BUFFER_BYTES_MAX && !this.#isPaused) {
      this.#isPaused = true;
      this.#reader?.pause();
    }
    this.#wake?.();
  }

  end(error: DaemonError | undefined): void {
    this.#end ??= { error };
    this.#wake?.();
  }

  async *items(): AsyncGenerator<T> {
    const stop = this.#signal.aborted ? undefined : onAbort(this.#signal, () => this.#wake?.());
    try {
      for (;;) {
        if (this.#signal.aborted) throw abortReason(this.#signal);
        const item = this.#items.shift();
        if (item !== undefined) {
          this.#bytes -= item.bytes;
          if (this.#isPaused && this.#bytes < READER_BUFFER_BYTES_MAX / 2) {
            this.#isPaused = false;
            this.#reader?.resume();
          }
          yield item.value;
          continue;
        }
        if (this.#end !== undefined) {
          if (this.#end.error !== undefined) throw this.#end.error;
          return;
        }
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      stop?.();
      this.#reader?.close();
    }
  }
}

/** The map that comes with the reply; resolves when its size is known. */
export async function readMap(
  reply: PeerReply,
  handlers: StreamHandlers,
): Promise<{ readonly size: number; readonly pieces: AsyncIterable<Uint8Array> }> {
  const stream = new ItemStream<Uint8Array>(handlers.signal);
  let size: number | undefined;
  let received = 0;
  const begun = new Promise<number>((resolve, reject) => {
    const fail = (error: DaemonError): void => {
      reject(error);
      stream.end(error);
    };
    const reader = new FrameReader(reply.response, {
      onSign: () => {
        handlers.onSign();
      },
      onFrame: (type, payload) => {
        if (type === FRAME.tick) handlers.onTick(decodeTick(payload));
        else if (type === FRAME.failed) fail(decodeError(payload.subarray(4), handlers.peerId));
        else if (type === FRAME.size && size === undefined) {
          size = parseSize(payload);
          resolve(size);
        } else throw malformedFrame(`frame type ${type} in a map`);
      },
      onData: (piece) => {
        received += piece.length;
        if (size === undefined || received > size) throw malformedFrame("more than the map");
        stream.push(piece, piece.length);
      },
      onEnd: (end) => {
        const isWhole = end.kind === "complete" && received === size;
        if (isWhole) stream.end(undefined);
        else if (end.kind === "complete") fail(malformedFrame("less than the map"));
        else fail(end.error);
      },
    });
    stream.attach(reader);
    const stop = onAbort(handlers.signal, (reason) => {
      reader.close();
      fail(reason);
    });
    reply.response.once("close", stop);
  });
  return { size: await begun, pieces: stream.items() };
}

function parseSize(payload: Buffer): number {
  const size = payload.length === 8 ? payload.readBigUInt64BE() : -1n;
  if (size < 0n || size > BigInt(MAP_BYTES_MAX)) throw malformedFrame("a map's size");
  return Number(size);
}

/** Batches of the order, each with the position of its first entry. */
export interface OrderBatch {
  readonly at: number;
  readonly entries: readonly OrderEntry[];
}

export function readOrder(reply: PeerReply, handlers: StreamHandlers): AsyncGenerator<OrderBatch> {
  const stream = new ItemStream<OrderBatch>(handlers.signal);
  const reader = new FrameReader(reply.response, {
    onSign: () => {
      handlers.onSign();
    },
    onFrame: (type: FrameType, payload: Buffer) => {
      if (type === FRAME.tick) handlers.onTick(decodeTick(payload));
      else if (type === FRAME.failed) {
        stream.end(decodeError(payload.subarray(4), handlers.peerId));
      } else if (type === FRAME.order) stream.push(parseOrder(payload), payload.length);
      else throw malformedFrame(`frame type ${type} in a fetch order`);
    },
    onData: () => {
      throw malformedFrame("data in a fetch order");
    },
    onEnd: (end) => {
      stream.end(end.kind === "complete" ? undefined : end.error);
    },
  });
  stream.attach(reader);
  return stream.items();
}

/** `data-loss` when malformed. */
export function parseOrder(payload: Uint8Array): OrderBatch {
  try {
    const text = Buffer.from(payload.buffer, payload.byteOffset, payload.length).toString("utf8");
    const { at, blocks } = asRecord(JSON.parse(text) as unknown, "fetch order");
    if (!isCount(at, ORDER_POSITION_MAX) || !Array.isArray(blocks)) throw malformedFrame("order");
    const entries: OrderEntry[] = [];
    for (const group of blocks as unknown[]) addGroup(group, entries);
    return { at, entries };
  } catch (error) {
    throw new DaemonError("data-loss", "malformed fetch order", { cause: error });
  }
}

function addGroup(group: unknown, entries: OrderEntry[]): void {
  if (!Array.isArray(group) || group.length !== 2) throw malformedFrame("order");
  const [layerId, indices] = group as [unknown, unknown];
  if (typeof layerId !== "string" || !HEX_DIGEST.test(layerId) || !Array.isArray(indices)) {
    throw malformedFrame("order");
  }
  if (entries.length + indices.length > ENTRIES_MAX) throw malformedFrame("order");
  for (const block of indices as unknown[]) {
    if (!isCount(block, 0xffff_ffff)) throw malformedFrame("order");
    entries.push({ layerId, block });
  }
}

function isCount(value: unknown, max: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= max;
}
