/** A store of one layer in memory, with room or without. */
import { DaemonError } from "../../../src/base/errors.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";
import type { BlockTable, StoredBlobs, StoredLayer } from "../../../src/block/index.ts";

export class FakeStored implements StoredLayer {
  readonly blocks = new Map<number, Uint8Array>();
  readonly doubtful = new Map<number, Uint8Array>();
  readonly writes: number[] = [];
  blobs: StoredBlobs | undefined;
  hasRoom: (index: number) => boolean = () => true;
  /** Called before each answer of `hold`: evict here. */
  onHold: () => void = () => undefined;
  readonly #table: BlockTable;

  constructor(table: BlockTable) {
    this.#table = table;
  }

  has(index: number): boolean {
    return this.blocks.has(index);
  }

  isDoubtful(index: number): boolean {
    return this.doubtful.has(index);
  }

  confirm(index: number): Promise<boolean> {
    const bytes = this.doubtful.get(index);
    this.doubtful.delete(index);
    if (bytes !== undefined) this.blocks.set(index, bytes);
    return Promise.resolve(bytes !== undefined);
  }

  hold(first: number, last: number): boolean {
    this.onHold();
    for (let index = first; index <= last; index += 1) if (!this.blocks.has(index)) return false;
    return true;
  }

  write(index: number, tarBytes: Uint8Array): Promise<boolean> {
    if (!this.hasRoom(index)) return Promise.resolve(false);
    this.writes.push(index);
    this.blocks.set(index, Buffer.from(tarBytes));
    return Promise.resolve(true);
  }

  read(range: ByteRange): Promise<Uint8Array> {
    const { first, last } = this.#table.span(range);
    const parts: Uint8Array[] = [];
    for (let index = first; index <= last; index += 1) {
      const bytes = this.blocks.get(index);
      if (bytes === undefined) return Promise.reject(new DaemonError("not-found", "evicted"));
      parts.push(bytes);
    }
    const offset = this.#table.tarOffsetOf(first);
    return Promise.resolve(Buffer.concat(parts).subarray(range.start - offset, range.end - offset));
  }
}
