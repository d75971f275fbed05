/** Which bytes of which device answer a read of a file. */
import type { ErofsData } from "./tree.ts";

export type DataPiece =
  | { readonly kind: "zeros"; readonly length: number }
  | { readonly kind: "bytes"; readonly bytes: Uint8Array }
  | {
      readonly kind: "device";
      readonly device: number;
      readonly deviceOffset: number;
      readonly length: number;
    };

/** The pieces of [start, end) in order, cut at the end of the file. */
export function piecesOf(
  data: ErofsData,
  range: { readonly start: number; readonly end: number },
): DataPiece[] {
  if (data.kind === "none") return [];
  if (data.kind === "inline") {
    const bytes = data.bytes.subarray(range.start, Math.max(range.start, range.end));
    return bytes.length === 0 ? [] : [{ kind: "bytes", bytes }];
  }
  const end = Math.min(range.end, data.size);
  const pieces: DataPiece[] = [];
  let at = range.start;
  for (let index = firstAfter(data.extents, at); at < end; index += 1) {
    const extent = data.extents[index];
    const from = Math.min(end, extent?.fileOffset ?? end);
    if (from > at) pieces.push({ kind: "zeros", length: from - at });
    at = Math.max(at, from);
    if (extent === undefined || at >= end) break;
    const length = Math.min(end, extent.fileOffset + extent.length) - at;
    const deviceOffset = extent.deviceOffset + (at - extent.fileOffset);
    pieces.push({ kind: "device", device: extent.device, deviceOffset, length });
    at += length;
  }
  return pieces;
}

/** The first extent that ends behind `offset`. */
function firstAfter(
  extents: readonly { readonly fileOffset: number; readonly length: number }[],
  offset: number,
): number {
  let low = 0;
  let high = extents.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const extent = extents[middle];
    if (extent !== undefined && extent.fileOffset + extent.length <= offset) low = middle + 1;
    else high = middle;
  }
  return low;
}
