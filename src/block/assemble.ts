/** From blocks back to the bytes that were asked for. */
import { errorCode } from "../base/errors.ts";
import type { ByteRange } from "../base/range-set.ts";
import type { BlockLayer, StoredLayer } from "./block-source.ts";
import type { BlockOutcome } from "./flight.ts";

/** The blocks' tar range; the last block's includes the padding of the data device. */
export function presentRange(
  { table }: BlockLayer,
  { first, last }: { readonly first: number; readonly last: number },
): ByteRange {
  const isLast = last + 1 >= table.count;
  const end = isLast ? Math.ceil(table.tarBytes / 512) * 512 : table.tarOffsetOf(last + 1);
  return { start: table.tarOffsetOf(first), end };
}

/** The asked bytes from blocks in hand and blocks in the store; undefined: one is gone again. */
export async function assemble(
  { layer, stored }: { readonly layer: BlockLayer; readonly stored: StoredLayer },
  { range, first }: { readonly range: ByteRange; readonly first: number },
  outcomes: readonly BlockOutcome[],
): Promise<Uint8Array | undefined> {
  const data = Buffer.alloc(range.end - range.start);
  for (const [offset, outcome] of outcomes.entries()) {
    const block = layer.table.at(first + offset);
    const start = Math.max(range.start, block.tarOffset);
    const end = Math.min(range.end, block.tarOffset + block.tarLength);
    let bytes: Uint8Array;
    if (outcome.isStored) {
      try {
        bytes = await stored.read({ start, end });
      } catch (error) {
        if (errorCode(error) === "not-found") return undefined;
        throw error;
      }
    } else {
      bytes = outcome.bytes.subarray(start - block.tarOffset, end - block.tarOffset);
    }
    data.set(bytes, start - range.start);
  }
  return data;
}
