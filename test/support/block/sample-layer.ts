/** Layers with a known tar stream, cut into blocks of a toy codec. */
import { createHash } from "node:crypto";
import { BlockTable, BlockTableBuilder } from "../../../src/block/index.ts";
import type { Block, BlockCodec, BlockLayer, BlockSource } from "../../../src/block/index.ts";
import { digestOf } from "../../../src/oci/digest.ts";

export interface SampleBlock {
  readonly tarLength: number;
  readonly codec?: BlockCodec;
  /** Blob bytes before the block that belong to none. */
  readonly gap?: number;
  /** Consecutive zstd-sequential blocks with the same number share one frame. */
  readonly frame?: number;
}

export interface SampleLayer {
  readonly id: string;
  readonly tar: Buffer;
  readonly blob: Buffer;
  readonly table: BlockTable;
  layer(sources: readonly BlockSource[] | (() => readonly BlockSource[])): BlockLayer;
}

/** The toy codec: every byte inverted. */
export function invert(bytes: Uint8Array): Buffer {
  const result = Buffer.from(bytes);
  for (let index = 0; index < result.length; index += 1) result[index] = ~(result[index] ?? 0);
  return result;
}

export const fakeDecodeBlock = (_block: Block, bytes: Uint8Array): Promise<Uint8Array> =>
  Promise.resolve(invert(bytes));

/** Decodes the toy codec while it streams. */
export async function* fakeDecodeFrame(
  blob: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  for await (const piece of blob) yield invert(piece);
}

/** A small deterministic stream, never all zeros. */
export function sampleBytes(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2654435761 + 12345) >>> 0;
  for (let index = 0; index < length; index += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = 1 + ((state >>> 24) % 255);
  }
  return bytes;
}

export function sampleLayer(seed: number, blocks: readonly SampleBlock[]): SampleLayer {
  const tar = sampleBytes(
    seed,
    blocks.reduce((sum, { tarLength }) => sum + tarLength, 0),
  );
  const builder = new BlockTableBuilder();
  const parts: Buffer[] = [];
  let tarOffset = 0;
  let blobOffset = 0;
  for (const [index, { tarLength, codec = "none", gap = 0, frame }] of blocks.entries()) {
    parts.push(Buffer.alloc(gap, 0xee));
    blobOffset += gap;
    const bytes = tar.subarray(tarOffset, tarOffset + tarLength);
    const blob = invert(bytes);
    let range = { start: blobOffset, length: tarLength };
    if (frame !== undefined) {
      const before = blocks.slice(0, index).filter((other) => other.frame === frame);
      const after = blocks.slice(index).filter((other) => other.frame === frame);
      const start = blobOffset - before.reduce((sum, other) => sum + other.tarLength, 0);
      const end = blobOffset + after.reduce((sum, other) => sum + other.tarLength, 0);
      range = { start, length: end - start };
    }
    builder.add({
      tarOffset,
      tarLength,
      blobOffset: range.start,
      blobLength: range.length,
      codec,
      startBits: 0,
      atMemberStart: false,
      windowOffset: 0,
      windowLength: 0,
      blobSha256: frame === undefined ? sha256(blob) : Buffer.alloc(32),
      tarSha256: sha256(bytes),
    });
    parts.push(blob);
    tarOffset += tarLength;
    blobOffset += tarLength;
  }
  const blob = Buffer.concat(parts);
  const table = BlockTable.parse(builder.finish(), { blobBytes: blob.length });
  const id = createHash("sha256").update(tar).digest("hex");
  return {
    id,
    tar,
    blob,
    table,
    layer: (sources) => ({
      id,
      blobDigest: digestOf(blob),
      blobBytes: blob.length,
      table,
      readWindow: () => Promise.resolve(undefined),
      sources: typeof sources === "function" ? sources : () => sources,
    }),
  };
}

/** `count` blocks of equal length. */
export function evenLayer(seed: number, count: number, tarLength: number): SampleLayer {
  return sampleLayer(
    seed,
    Array.from({ length: count }, () => ({ tarLength })),
  );
}

/** Changes one bit of the byte. */
export function flip(bytes: Uint8Array, at: number): void {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}
