/** Which neighbouring blocks are asked for in one range request. Pure. */
import type { ByteRange } from "../base/range-set.ts";
import type { Block, BlockTable } from "./block-table.ts";
import { RUN_GAP_BYTES_MAX } from "./limits.ts";
import type { BlockPlace } from "./split-blocks.ts";

export interface RunPlan {
  readonly first: number;
  /** Inclusive. */
  readonly last: number;
  /** Blob bytes. */
  readonly range: ByteRange;
  /** A `zstd-sequential` frame: one range for all its blocks. */
  readonly isFrame: boolean;
  /** Places in the blob, or (a frame) in the tar stream. */
  readonly places: readonly BlockPlace[];
}

export interface RunPlanOptions {
  readonly bytesMax: number;
  /** Whether a block before the head may be taken along (it delays the head). */
  readonly mayPrecede: (index: number) => boolean;
  readonly mayFollow: (index: number) => boolean;
}

export function isSequential(block: Block): boolean {
  return block.codec === "zstd-sequential";
}

/** Whether a block of the layer can only be had with the whole frame that it is in. */
export function hasSequential(table: BlockTable): boolean {
  for (let index = 0; index < table.count; index += 1) {
    if (isSequential(table.at(index))) return true;
  }
  return false;
}

/** First and last block of the `zstd-sequential` frame that holds the block. */
export function frameSpan(table: BlockTable, index: number): { first: number; last: number } {
  const block = table.at(index);
  const isSameFrame = (other: number): boolean => {
    if (other < 0 || other >= table.count) return false;
    const candidate = table.at(other);
    return isSequential(candidate) && candidate.blobOffset === block.blobOffset;
  };
  let first = index;
  let last = index;
  while (isSameFrame(first - 1)) first -= 1;
  while (isSameFrame(last + 1)) last += 1;
  return { first, last };
}

/** The run around `head`: the blocks before and after it that may come along, within bounds. */
export function planRun(table: BlockTable, head: number, options: RunPlanOptions): RunPlan {
  const block = table.at(head);
  if (isSequential(block)) return planFrame(table, block);
  const blocks = [block];
  let bytes = block.blobLength;
  const tryJoin = (before: Block, after: Block, added: Block): boolean => {
    const grown = bytes + joinedBytes(before, after, added);
    if (!areMergeable(before, after) || grown > options.bytesMax) return false;
    bytes = grown;
    return true;
  };
  for (let index = head - 1; index >= 0 && options.mayPrecede(index); index -= 1) {
    const before = table.at(index);
    const first = blocks[0];
    if (first === undefined || !tryJoin(before, first, before)) break;
    blocks.unshift(before);
  }
  for (let index = head + 1; index < table.count && options.mayFollow(index); index += 1) {
    const after = table.at(index);
    const last = blocks.at(-1);
    if (last === undefined || !tryJoin(last, after, after)) break;
    blocks.push(after);
  }
  const places = blocks.map((each) => ({
    index: each.index,
    start: each.blobOffset,
    end: each.blobOffset + each.blobLength,
  }));
  const first = places[0] ?? { index: head, start: 0, end: 0 };
  const last = places.at(-1) ?? first;
  return {
    first: first.index,
    last: last.index,
    range: { start: first.start, end: last.end },
    isFrame: false,
    places,
  };
}

function planFrame(table: BlockTable, block: Block): RunPlan {
  const { first, last } = frameSpan(table, block.index);
  const places: BlockPlace[] = [];
  for (let index = first; index <= last; index += 1) {
    const { tarOffset, tarLength } = table.at(index);
    places.push({ index, start: tarOffset, end: tarOffset + tarLength });
  }
  const range = { start: block.blobOffset, end: block.blobOffset + block.blobLength };
  return { first, last, range, isFrame: true, places };
}

/** Blob bytes that the run grows by: the block and the gap to it, less what they share. */
function joinedBytes(before: Block, after: Block, added: Block): number {
  return added.blobLength + after.blobOffset - (before.blobOffset + before.blobLength);
}

/** In blob order, both by start and by end, with at most a small gap between. */
function areMergeable(before: Block, after: Block): boolean {
  const end = before.blobOffset + before.blobLength;
  return (
    !isSequential(before) &&
    !isSequential(after) &&
    after.blobOffset >= before.blobOffset &&
    after.blobOffset + after.blobLength >= end &&
    after.blobOffset - end <= RUN_GAP_BYTES_MAX
  );
}
