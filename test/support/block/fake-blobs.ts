/** A blob store of one layer in memory. */
import type { StoredBlobs } from "../../../src/block/index.ts";
import type { SampleLayer } from "./sample-layer.ts";

export class FakeBlobs implements StoredBlobs {
  readonly blocks = new Map<number, Uint8Array>();
  readonly writes: number[] = [];
  readonly reads: number[] = [];
  readonly discarded: number[] = [];

  has(index: number): boolean {
    return this.blocks.has(index);
  }

  read(index: number): Promise<Uint8Array | undefined> {
    this.reads.push(index);
    return Promise.resolve(this.blocks.get(index));
  }

  write(index: number, bytes: Uint8Array): Promise<void> {
    this.writes.push(index);
    this.blocks.set(index, Buffer.from(bytes));
    return Promise.resolve();
  }

  discard(index: number): Promise<void> {
    this.discarded.push(index);
    this.blocks.delete(index);
    return Promise.resolve();
  }
}

export function blobOf({ table, blob }: SampleLayer, index: number): Buffer {
  const { blobOffset, blobLength } = table.at(index);
  return blob.subarray(blobOffset, blobOffset + blobLength);
}
