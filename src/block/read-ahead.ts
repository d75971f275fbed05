/**
 * Tells sequential readers of a layer from random ones, and how far to fetch ahead of them. Pure.
 *
 * It sees one report per block that a reader enters for the first time (a block fetched ahead is
 * not announced before a reader asks for it), so it counts in blocks: a reader that goes from one
 * block into the next, twice, without a jump, is sequential. The window doubles whenever the
 * reader has used half of it.
 */
import type { ByteRange } from "../base/range-set.ts";
import type { BlockTable } from "./block-table.ts";
import { READ_STREAMS_MAX } from "./limits.ts";

export interface ReadAheadOptions {
  /** First window, tar bytes. */
  readonly firstBytes: number;
  /** Largest window, tar bytes; 0 switches read-ahead off. */
  readonly maxBytes: number;
  /** Steps from one block into the next before the first window. */
  readonly stepsMin: number;
}

const MIB = 1024 * 1024;
export const DEFAULT_READ_AHEAD: ReadAheadOptions = {
  firstBytes: MIB,
  maxBytes: 8 * MIB,
  stepsMin: 2,
};

/** A jump of less than this across a block's border still counts as going on. */
const STEP_SLACK_BYTES = 4096;

interface Stream {
  /** The last block it was seen in. */
  block: number;
  steps: number;
  windowBytes: number;
  /** Exclusive block index up to which blocks were asked for ahead. */
  aheadEnd: number;
}

/** Blocks first…last (inclusive) to fetch ahead. */
export interface AheadBlocks {
  readonly first: number;
  readonly last: number;
}

export class ReadAhead {
  readonly #options: ReadAheadOptions;
  /** Most recently active last. */
  readonly #streams: Stream[] = [];

  constructor(options: ReadAheadOptions) {
    this.#options = options;
  }

  /** A reader asked for the range, which lies in blocks first…last. */
  onRead(
    table: BlockTable,
    range: ByteRange,
    span: { readonly first: number; readonly last: number },
  ): AheadBlocks | undefined {
    if (this.#options.maxBytes === 0) return undefined;
    const known = this.#streams.findIndex((stream) => goesOn(table, stream, range, span));
    const stream = known < 0 ? undefined : this.#streams.splice(known, 1)[0];
    if (stream === undefined) {
      this.#streams.push({ block: span.last, steps: 0, windowBytes: 0, aheadEnd: 0 });
      if (this.#streams.length > READ_STREAMS_MAX) this.#streams.shift();
      return undefined;
    }
    this.#streams.push(stream);
    if (span.last <= stream.block) return undefined;
    stream.steps += span.last - stream.block;
    stream.block = span.last;
    if (stream.steps < this.#options.stepsMin) return undefined;
    return this.#extend(table, stream);
  }

  #extend(table: BlockTable, stream: Stream): AheadBlocks | undefined {
    const readEnd = blockEnd(table, stream.block);
    const aheadEnd = Math.max(stream.aheadEnd, stream.block + 1);
    const aheadBytes = blockEnd(table, aheadEnd - 1) - readEnd;
    if (aheadBytes > stream.windowBytes / 2) return undefined;
    const { firstBytes, maxBytes } = this.#options;
    stream.windowBytes =
      stream.windowBytes === 0 ? firstBytes : Math.min(maxBytes, stream.windowBytes * 2);
    const target = Math.min(table.tarBytes, readEnd + stream.windowBytes);
    if (target <= blockEnd(table, aheadEnd - 1)) return undefined;
    const last = table.find(target - 1);
    stream.aheadEnd = last + 1;
    return { first: aheadEnd, last };
  }
}

/**
 * In the stream's block, across its end into the next one without a jump, or somewhere in what was
 * fetched ahead of it (what the reader found present there was not reported).
 */
function goesOn(
  table: BlockTable,
  stream: Stream,
  range: ByteRange,
  span: { readonly first: number; readonly last: number },
): boolean {
  if (span.first === stream.block) return true;
  if (span.first > stream.block && span.first < stream.aheadEnd) return true;
  if (span.first !== Math.max(stream.block + 1, stream.aheadEnd)) return false;
  return range.start - table.tarOffsetOf(span.first) <= STEP_SLACK_BYTES;
}

function blockEnd(table: BlockTable, index: number): number {
  return index + 1 < table.count ? table.tarOffsetOf(index + 1) : table.tarBytes;
}
