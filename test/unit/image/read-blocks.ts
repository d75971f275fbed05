/** Cuts a blob into blocks and decodes each of them on its own. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { decodeBlock, decodeFrame, type Block } from "../../../src/block/index.ts";

import type { CutBlock } from "../../../src/image/pass/block-cutter.ts";
import { passLayer, type LayerPassResult } from "../../../src/image/pass/layer-pass.ts";
import { chunksOf, packTar } from "../../support/layers/index.ts";

export interface PassedLayer {
  readonly result: LayerPassResult;
  readonly blocks: readonly CutBlock[];
  readonly tar: Buffer;
}

export async function passBlob(blob: Buffer, pieceBytes = 65_536): Promise<PassedLayer> {
  const blocks: CutBlock[] = [];
  const tar: Buffer[] = [];
  let tarBytes = 0;
  const result = await passLayer(
    chunksOf(blob, pieceBytes),
    {
      onTar: (bytes, tarOffset) => {
        assert.equal(tarOffset, tarBytes);
        tarBytes += bytes.length;
        tar.push(Buffer.from(bytes));
      },
      onBlock: (block) => {
        assert.ok(block.tarOffset + block.tarLength <= tarBytes);
        blocks.push(block);
      },
    },
    { signal: new AbortController().signal, blobBytes: blob.length },
  );
  return { result, blocks, tar: Buffer.concat(tar) };
}

export function toBlock(cut: CutBlock, index: number): Block {
  const { window, ...fields } = cut;
  return { ...fields, index, windowOffset: 0, windowLength: window?.length ?? 0 };
}

/** Blocks cover the tar without gap, and each decodes alone to its part of it. */
export async function checkBlocks(
  blob: Buffer,
  tar: Buffer,
  blocks: readonly CutBlock[],
): Promise<void> {
  let tarOffset = 0;
  for (const [index, cut] of blocks.entries()) {
    assert.equal(cut.tarOffset, tarOffset);
    tarOffset += cut.tarLength;
    const expected = tar.subarray(cut.tarOffset, tarOffset);
    const bytes = blob.subarray(cut.blobOffset, cut.blobOffset + cut.blobLength);
    assert.ok(Buffer.from(cut.tarSha256).equals(sha256(expected)), `tar digest of ${index}`);
    if (cut.codec === "zstd-sequential") continue;
    assert.ok(Buffer.from(cut.blobSha256).equals(sha256(bytes)), `blob digest of ${index}`);
    const decoded = await decodeBlock(toBlock(cut, index), bytes, cut.window);
    assert.ok(expected.equals(decoded), `block ${index}`);
  }
  assert.equal(tarOffset, tar.length);
  await checkFrames(blob, tar, blocks);
}

async function checkFrames(blob: Buffer, tar: Buffer, blocks: readonly CutBlock[]): Promise<void> {
  const frames = new Map<number, CutBlock[]>();
  for (const block of blocks.filter((cut) => cut.codec === "zstd-sequential")) {
    frames.set(block.blobOffset, [...(frames.get(block.blobOffset) ?? []), block]);
  }
  for (const [blobOffset, parts] of frames) {
    const [first] = parts;
    assert.ok(first !== undefined);
    const tarBytes = parts.reduce((total, block) => total + block.tarLength, 0);
    const frame = blob.subarray(blobOffset, blobOffset + first.blobLength);
    const output: Buffer[] = [];
    const signal = new AbortController().signal;
    for await (const bytes of decodeFrame(chunksOf(frame, 50_000), { tarBytes, signal })) {
      output.push(Buffer.from(bytes));
    }
    const expected = tar.subarray(first.tarOffset, first.tarOffset + tarBytes);
    assert.ok(Buffer.concat(output).equals(expected));
  }
}

export async function checkBlob(blob: Buffer, tar: Buffer): Promise<readonly CutBlock[]> {
  const { result, blocks, tar: streamed } = await passBlob(blob);
  assert.ok(streamed.equals(tar));
  assert.equal(result.diffId, `sha256:${sha256(tar).toString("hex")}`);
  assert.equal(result.blobDigest, `sha256:${sha256(blob).toString("hex")}`);
  await checkBlocks(blob, tar, blocks);
  return blocks;
}

export function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

/** A layer with one file of the data. */
export async function layerOf(data: Buffer): Promise<Buffer> {
  return packTar([{ name: "file", data }]);
}
