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

/**
 * Yields each place's bytes as soon as they are complete. `stream` starts at `start`; places are
 * ordered by start and by end, may overlap (gzip blocks share a byte) and may leave gaps, which
 * are dropped. A buffer is allocated when its first byte arrives. Ends after the last place
 * without reading on; throws `unavailable` when the stream ends before it.
 */
export async function* splitBlocks(
  stream: AsyncIterable<Uint8Array>,
  start: number,
  places: readonly BlockPlace[],
): AsyncGenerator<BlockBytes> {
  let position = start;
  let next = 0;
  const buffers = new Map<number, Buffer>();
  for await (const piece of stream) {
    const pieceEnd = position + piece.length;
    for (let at = next; at < places.length; at += 1) {
      const place = places[at];
      if (place === undefined || place.start >= pieceEnd) break;
      copyPart(buffers, place, { piece, position });
    }
    position = pieceEnd;
    for (let place = places[next]; place !== undefined && place.end <= position;) {
      const bytes = buffers.get(place.index) ?? Buffer.alloc(0);
      buffers.delete(place.index);
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
  buffers: Map<number, Buffer>,
  place: BlockPlace,
  { piece, position }: { readonly piece: Uint8Array; readonly position: number },
): void {
  let buffer = buffers.get(place.index);
  if (buffer === undefined) {
    buffer = Buffer.allocUnsafeSlow(place.end - place.start);
    buffers.set(place.index, buffer);
  }
  const from = Math.max(place.start, position);
  const to = Math.min(place.end, position + piece.length);
  buffer.set(piece.subarray(from - position, to - position), from - place.start);
}
