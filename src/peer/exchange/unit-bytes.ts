/** What came of one block, from one sender or several, and which of them answers for it. */
import type { BlockStream } from "./block-stream.ts";

/** Longer blocks (whole zstd frames) are not kept for comparing; nobody answers for a mixed one. */
const COMPARED_BYTES_MAX = 8 * 1024 * 1024;

export interface Supplier {
  readonly peerId: string;
  /** It sent every byte, or the same as was there before: if the block is wrong, it lied. */
  readonly isAlone: boolean;
}

const NOTHING = Buffer.alloc(0);

export class UnitBytes {
  readonly #length: number;
  /** Bytes of the block so far, in order, as long as they may have to be compared. */
  readonly #kept: Buffer[] = [];
  #position = 0;
  /** How far each sender is. */
  readonly #offsets = new Map<BlockStream, number>();
  readonly #dropped = new Set<BlockStream>();
  /** Set when the block is whole. */
  supplier: Supplier | undefined;

  constructor(length: number) {
    this.#length = length;
  }

  senders(): Iterable<BlockStream> {
    return this.#offsets.keys();
  }

  /** The sender has nothing (more) of the block. */
  drop(stream: BlockStream): void {
    this.#dropped.add(stream);
  }

  isDropped(stream: BlockStream): boolean {
    return this.#dropped.has(stream);
  }

  /** The part that is new; `differs` when an earlier sender sent other bytes. */
  add(stream: BlockStream, bytes: Buffer): Buffer | "differs" {
    const offset = this.#offsets.get(stream) ?? 0;
    this.#offsets.set(stream, offset + bytes.length);
    const known = Math.min(bytes.length, Math.max(0, this.#position - offset));
    if (known > 0 && !this.#isSame(offset, bytes.subarray(0, known))) return "differs";
    const fresh = known === bytes.length ? NOTHING : bytes.subarray(known);
    if (fresh.length > 0) {
      if (this.#length <= COMPARED_BYTES_MAX) this.#kept.push(fresh);
      this.#position += fresh.length;
    }
    return fresh;
  }

  /** The sender says that the block is complete. */
  end(stream: BlockStream, peerId: string): void {
    const isAlone = this.#offsets.size === 1 || this.#length <= COMPARED_BYTES_MAX;
    if ((this.#offsets.get(stream) ?? 0) === this.#length) this.supplier = { peerId, isAlone };
  }

  #isSame(offset: number, bytes: Buffer): boolean {
    if (this.#length > COMPARED_BYTES_MAX) return true;
    let start = 0;
    for (const piece of this.#kept) {
      const from = Math.max(start, offset);
      const to = Math.min(start + piece.length, offset + bytes.length);
      if (from < to) {
        const ours = piece.subarray(from - start, to - start);
        if (!ours.equals(bytes.subarray(from - offset, to - offset))) return false;
      }
      start += piece.length;
      if (start >= offset + bytes.length) break;
    }
    return true;
  }
}
