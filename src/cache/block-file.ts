/**
 * One sparse file that holds a layer's blocks at their own offsets (tar offsets in the decoded
 * store, blob offsets in the blob store), and the state of each block. Mechanism only: what is
 * kept and what goes is decided by `CacheQuota`.
 */
import { DaemonError } from "../base/errors.ts";
import type { ByteRange } from "../base/range-set.ts";
import { RangeSet } from "../base/range-set.ts";
import { ALLOCATION_BYTES } from "./limits.ts";
import type { CacheFile } from "./cache-files.ts";
import type { PresenceFile } from "./presence-file.ts";

/** Where block `index` lies in the file. */
export type PlaceOf = (index: number) => ByteRange;

export const BLOCK_STATE = { absent: 0, writing: 1, present: 2, doubtful: 3, leaving: 4 } as const;
export type BlockState = (typeof BLOCK_STATE)[keyof typeof BLOCK_STATE];

export class BlockFile {
  readonly #data: CacheFile;
  readonly #presence: PresenceFile;
  readonly #placeOf: PlaceOf;
  readonly #states: Uint8Array;
  /** Work on a block that others must wait for: writing, leaving, being verified. */
  readonly #busy = new Map<number, Promise<unknown>>();
  readonly #pins = new Map<number, number>();
  /** Blocks whose bit is not set yet, and the number of the write that made them. */
  readonly #unflushed = new Map<number, number>();
  /** Of those, the ones whose fdatasync failed. */
  readonly #lost = new Set<number>();
  #writes = 0;
  /** The punch under way: a write that begins meanwhile waits, its edge may be in the hole. */
  #punching: Promise<void> | undefined;

  constructor(
    parts: { readonly data: CacheFile; readonly presence: PresenceFile; readonly placeOf: PlaceOf },
    options: { readonly blockCount: number; readonly isDoubtful: boolean },
  ) {
    this.#data = parts.data;
    this.#presence = parts.presence;
    this.#placeOf = parts.placeOf;
    this.#states = new Uint8Array(options.blockCount);
    const known = options.isDoubtful ? BLOCK_STATE.doubtful : BLOCK_STATE.present;
    for (let index = 0; index < options.blockCount; index += 1) {
      if (this.#presence.has(index)) this.#states[index] = known;
    }
  }

  get blockCount(): number {
    return this.#states.length;
  }

  get hasUnflushed(): boolean {
    return this.#unflushed.size > 0;
  }

  /** Readable, but never to be called present after a crash: they are to be evicted. */
  get lost(): ReadonlySet<number> {
    return this.#lost;
  }

  state(index: number): BlockState {
    const state = this.#states[index];
    // The array holds nothing else: it is private and written below only.
    return (state ?? BLOCK_STATE.absent) as BlockState;
  }

  has(index: number): boolean {
    return this.#states[index] === BLOCK_STATE.present;
  }

  /** Indexes of blocks that occupy disk: present or doubtful. */
  *kept(): IterableIterator<number> {
    for (let index = 0; index < this.#states.length; index += 1) {
      const state = this.#states[index];
      if (state === BLOCK_STATE.present || state === BLOCK_STATE.doubtful) yield index;
    }
  }

  /** What the block costs: whole allocation units, a shared one counted for both neighbours. */
  costBytes(index: number): number {
    const { start, end } = this.#placeOf(index);
    return alignUp(end) - alignDown(start);
  }

  pinned(index: number): boolean {
    return this.#pins.has(index) || this.#busy.has(index);
  }

  pin(first: number, last: number): () => void {
    for (let index = first; index <= last; index += 1) {
      this.#pins.set(index, (this.#pins.get(index) ?? 0) + 1);
    }
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      for (let index = first; index <= last; index += 1) {
        const count = (this.#pins.get(index) ?? 1) - 1;
        if (count === 0) this.#pins.delete(index);
        else this.#pins.set(index, count);
      }
    };
  }

  /**
   * Whoever wants the block for itself loops `while (file.isBusy(i)) await file.idle(i)`: between
   * the end of one's wait and one's turn another may have taken it.
   */
  isBusy(index: number): boolean {
    return this.#busy.has(index);
  }

  async idle(index: number): Promise<void> {
    await this.#busy.get(index);
  }

  async allIdle(): Promise<void> {
    while (this.#busy.size > 0) await Promise.all(this.#busy.values());
  }

  /** Runs `work` as the only one on an idle block; others wait in `idle`. */
  async exclusive<T>(index: number, work: () => Promise<T>): Promise<T> {
    if (this.#busy.has(index)) throw new DaemonError("internal", `block ${index} is busy`);
    const running = work();
    const settled = running.then(
      () => undefined,
      () => undefined,
    );
    const entry = settled.then(() => {
      if (this.#busy.get(index) === entry) this.#busy.delete(index);
    });
    this.#busy.set(index, entry);
    try {
      return await running;
    } finally {
      if (this.#busy.get(index) === entry) this.#busy.delete(index);
    }
  }

  /** Writes an absent block; it is present when this resolves. */
  async write(index: number, bytes: Uint8Array): Promise<void> {
    const { start, end } = this.#placeOf(index);
    if (bytes.length !== end - start) {
      throw new DaemonError("internal", `block ${index}: ${bytes.length} of ${end - start} bytes`);
    }
    this.#states[index] = BLOCK_STATE.writing;
    this.#lost.delete(index);
    try {
      while (this.#punching !== undefined) await this.#punching;
      await this.#data.writeAt(bytes, start);
    } catch (error) {
      this.#states[index] = BLOCK_STATE.absent;
      throw error;
    }
    this.markWritten(index);
  }

  /** The block's bytes are in the file (written here, or by a filling pass). */
  markWritten(index: number): void {
    this.#writes += 1;
    this.#unflushed.set(index, this.#writes);
    this.#states[index] = BLOCK_STATE.present;
  }

  /** A doubtful block proved right. */
  markVerified(index: number): void {
    if (this.#states[index] === BLOCK_STATE.doubtful) this.#states[index] = BLOCK_STATE.present;
  }

  async read(range: ByteRange): Promise<Buffer> {
    return this.#data.readAt(range.start, range.end - range.start);
  }

  /**
   * Begins to remove blocks: from here on `has` says no. They must not be pinned; absent ones may
   * have bytes on disk that nobody vouches for.
   * `finish` frees them; `undo` puts them back as they were.
   */
  leave(indexes: readonly number[]): { finish(): Promise<void>; undo(): void } {
    const before = indexes.map((index) => this.state(index));
    for (const index of indexes) this.#states[index] = BLOCK_STATE.leaving;
    let end: () => void = () => undefined;
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    for (const index of indexes) this.#busy.set(index, ended);
    const release = (): void => {
      for (const index of indexes) this.#busy.delete(index);
      end();
    };
    const undo = (): void => {
      for (const [at, index] of indexes.entries()) {
        this.#states[index] = before[at] ?? BLOCK_STATE.absent;
      }
      release();
    };
    const finish = async (): Promise<void> => {
      try {
        await this.#presence.clear(indexes);
      } catch (error) {
        undo();
        throw error;
      }
      for (const index of indexes) {
        this.#unflushed.delete(index);
        this.#lost.delete(index);
      }
      try {
        await this.#punchHoles(indexes);
      } finally {
        for (const index of indexes) this.#states[index] = BLOCK_STATE.absent;
        release();
      }
    };
    return { finish, undo };
  }

  /** The widest range that removing the block may punch: what readers must forget before. */
  reach(index: number): ByteRange {
    const { start, end } = this.#placeOf(index);
    return { start: alignDown(start), end: alignUp(end) };
  }

  /**
   * The ranges to punch for leaving blocks: widened to whole allocation units where
   * the neighbours are absent too, and clear of every neighbour that is not.
   */
  #holes(indexes: readonly number[]): RangeSet {
    const holes = new RangeSet();
    const isFree = (index: number): boolean => {
      const state = this.#states[index];
      return state === BLOCK_STATE.absent || state === BLOCK_STATE.leaving;
    };
    for (const index of indexes) {
      const place = this.#placeOf(index);
      let start = alignDown(place.start);
      for (let other = index - 1; other >= 0; other -= 1) {
        const { end } = this.#placeOf(other);
        if (end <= start) break;
        if (isFree(other)) continue;
        start = end;
        break;
      }
      let end = alignUp(place.end);
      for (let other = index + 1; other < this.#states.length; other += 1) {
        const { start: otherStart } = this.#placeOf(other);
        if (otherStart >= end) break;
        if (isFree(other)) continue;
        end = otherStart;
        break;
      }
      holes.add({ start, end });
    }
    return holes;
  }

  /** Makes the blocks written so far count after a crash: their data first, then their bits. */
  async flush(): Promise<void> {
    const batch = new Map([...this.#unflushed].filter(([index]) => !this.#lost.has(index)));
    if (batch.size === 0) return;
    try {
      await this.#data.sync();
    } catch (error) {
      // Source: fsync(2), errseq_t: pages that could not be written are clean from now on, and the
      // next fdatasync knows nothing of them.
      for (const [index, state] of this.#states.entries()) {
        if (state === BLOCK_STATE.writing || this.#unflushed.has(index)) this.#lost.add(index);
      }
      throw error;
    }
    const isStillWritten = (index: number): boolean =>
      this.#unflushed.get(index) === batch.get(index) &&
      !this.#lost.has(index) &&
      this.#states[index] === BLOCK_STATE.present;
    await this.#presence.set([...batch.keys()], isStillWritten);
    for (const [index, write] of batch) {
      const isDone = this.#unflushed.get(index) === write && this.#presence.has(index);
      if (isDone) this.#unflushed.delete(index);
    }
  }

  /** Everything flushed, the bitmap's own bytes included. */
  async sync(): Promise<void> {
    await this.flush();
    await this.#presence.sync();
  }

  async setUseTime(timeMs: number): Promise<void> {
    await this.#presence.setUseTime(timeMs);
  }

  /** One at a time per file, and no write begins inside a hole that is being made. */
  async #punchHoles(indexes: readonly number[]): Promise<void> {
    while (this.#punching !== undefined) await this.#punching;
    const holes = this.#holes(indexes);
    const work = (async (): Promise<void> => {
      for (const { start, end } of holes) await this.#data.punch(start, end - start);
    })();
    const settled = work.then(
      () => undefined,
      () => undefined,
    );
    this.#punching = settled;
    try {
      await work;
    } finally {
      this.#punching = undefined;
    }
  }
}

function alignDown(offset: number): number {
  return Math.floor(offset / ALLOCATION_BYTES) * ALLOCATION_BYTES;
}

function alignUp(offset: number): number {
  return Math.ceil(offset / ALLOCATION_BYTES) * ALLOCATION_BYTES;
}
