/** Cuts a stream of bytes into blocks while it arrives. */
import { DaemonError } from "../base/errors.ts";

/** One block's place in the stream's coordinates (blob or tar bytes). */
export interface BlockPlace {
  readonly index: number;
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

export interface BlockBytes {
  readonly index: number;
  /** Owned by the receiver. */
  readonly bytes: Uint8Array;
}

/** Where one block's bytes are put together. */
export interface BlockSink {
  /** Copies bytes that belong at the offset within the block; in order, from 0. */
  write(offset: number, part: Uint8Array): void;
  /** The buffer of the whole block. */
  readonly bytes: Uint8Array;
}

function newSink({ start, end }: BlockPlace): BlockSink {
  const bytes = Buffer.allocUnsafeSlow(end - start);
  return {
    bytes,
    write: (offset, part) => {
      bytes.set(part, offset);
    },
  };
}

/**
 * Yields each place's bytes as soon as they are complete. `stream` starts at `start`; places are
 * ordered by start and by end, may overlap (gzip blocks share a byte) and may leave gaps, which
 * are dropped. A sink is asked for when a block's first byte arrives. Ends after the last place
 * without reading on; throws `unavailable` when the stream ends before it.
 */
export async function* splitBlocks(
  stream: AsyncIterable<Uint8Array>,
  start: number,
  places: readonly BlockPlace[],
  sinkOf: (place: BlockPlace) => BlockSink = newSink,
): AsyncGenerator<BlockBytes> {
  let position = start;
  let next = 0;
  const sinks = new Map<number, BlockSink>();
  for await (const piece of stream) {
    const pieceEnd = position + piece.length;
    for (let at = next; at < places.length; at += 1) {
      const place = places[at];
      if (place === undefined || place.start >= pieceEnd) break;
      const sink = sinks.get(place.index) ?? sinkOf(place);
      sinks.set(place.index, sink);
      copyPart(sink, place, { piece, position });
    }
    position = pieceEnd;
    for (let place = places[next]; place !== undefined && place.end <= position;) {
      const bytes = sinks.get(place.index)?.bytes ?? Buffer.alloc(0);
      sinks.delete(place.index);
      next += 1;
      yield { index: place.index, bytes };
      place = places[next];
    }
    if (next === places.length) return;
  }
  const end = places.at(-1)?.end ?? start;
  throw new DaemonError(
    "unavailable",
    `stream ended after ${position - start} of ${end - start} bytes`,
  );
}

function copyPart(
  sink: BlockSink,
  place: BlockPlace,
  { piece, position }: { readonly piece: Uint8Array; readonly position: number },
): void {
  const from = Math.max(place.start, position);
  const to = Math.min(place.end, position + piece.length);
  sink.write(from - place.start, piece.subarray(from - position, to - position));
}
