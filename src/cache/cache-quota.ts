/**
 * One byte quota over both stores of all layers: who may write, who must go.
 *
 * Victims, in this order: blob bytes; layers that nobody opened since the start; blocks not used
 * since the start, by their layer's last use; blocks by last use. A writer is admitted before it
 * writes, so the quota is never exceeded; eviction starts a little ahead of it so that a reader
 * seldom waits for one.
 */
import { raceAbort } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { RangeSet } from "../base/range-set.ts";
import type { ByteRange } from "../base/range-set.ts";
import { BLOCK_STATE } from "./block-file.ts";
import type { BlockFile } from "./block-file.ts";
import { BlockLru } from "./block-lru.ts";
import {
  EVICTION_BATCH_BYTES,
  EVICTION_HEADROOM_BYTES,
  EVICTION_RETRY_MS,
  EVICTION_SKIPPED_MAX,
  FREE_SPACE_AGE_BYTES,
  FREE_SPACE_AGE_MS,
  HOLD_MS,
  SAID_AGE_MS,
} from "./limits.ts";
import type { StoreKind } from "./presence-file.ts";

/**
 * Makes every reader forget ranges of a layer's decoded file and waits until no read of them is
 * under way; also of layers that nobody reads. Rejects when that is not sure: then nothing is
 * removed. Ranges may cover more than what is removed.
 */
export type DropRanges = (
  layerId: string,
  ranges: readonly ByteRange[],
  options: { readonly signal: AbortSignal },
) => Promise<void>;

export interface QuotaOptions {
  /** Bytes of both stores together. */
  readonly quotaBytes: number;
  /** Bytes of the file system that are left to others. */
  readonly reserveBytes: number;
  /** After this a keeper that does not answer has not dropped anything. */
  readonly dropLimitMs: number;
}

export interface QuotaDependencies {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly drop: DropRanges;
  readonly freeBytes: () => Promise<number>;
}

/** An open file of blocks. */
export interface Resident {
  readonly kind: StoreKind;
  readonly layerId: string;
  readonly file: BlockFile;
  readonly useTimeMs: number;
}

/** A layer's file that nobody opened since the start: it goes as a whole. */
export interface DormantFile {
  readonly kind: StoreKind;
  readonly layerId: string;
  readonly blocks: number;
  readonly bytes: number;
  readonly useTimeMs: number;
  evict(): Promise<void>;
}

export interface QuotaCounts {
  readonly evictedBlocks: number;
  readonly evictedBytes: number;
  readonly refusedWrites: number;
  readonly noSpaceErrors: number;
  readonly failedEvictions: number;
}

/** What room is taken for: blocks of a store, or a pass that fills one. */
export type RoomKind = StoreKind | "fills" | "blobFills";

/** What may be pushed out for it: blob bytes push out each other only. */
function victimsOf(kind: RoomKind): StoreKind {
  return kind === "blobs" || kind === "blobFills" ? "blobs" : "decoded";
}

interface Entry extends Resident {
  readonly slot: number;
  /** Blocks kept since before the start and not used since: they are not in the LRU. */
  coldCount: number;
}

type Group = Map<number, number[]>;

export class CacheQuota {
  readonly #dependencies: QuotaDependencies;
  readonly #options: QuotaOptions;
  readonly #used = { decoded: 0, blobs: 0, fills: 0, blobFills: 0 };
  readonly #lru = { decoded: new BlockLru(), blobs: new BlockLru() };
  readonly #entries = new Map<number, Entry>();
  readonly #dormant = new Map<string, DormantFile>();
  readonly #evicting = new Map<StoreKind, Promise<number>>();
  readonly #closing = new AbortController();
  #nextSlot = 0;
  #retryAtMs = 0;
  #isRefusing = false;
  #saidAtMs = -Infinity;
  #freeBytes = 0;
  #freeBytesAtMs = -Infinity;
  #writtenSince = 0;
  readonly #counts = {
    evictedBlocks: 0,
    evictedBytes: 0,
    refusedWrites: 0,
    noSpaceErrors: 0,
    failedEvictions: 0,
  };

  constructor(dependencies: QuotaDependencies, options: QuotaOptions) {
    this.#dependencies = dependencies;
    this.#options = options;
  }

  get quotaBytes(): number {
    return this.#options.quotaBytes;
  }

  get usedBytes(): number {
    const { decoded, blobs, fills, blobFills } = this.#used;
    return decoded + blobs + fills + blobFills;
  }

  get used(): Readonly<Record<RoomKind, number>> {
    return { ...this.#used };
  }

  get counts(): QuotaCounts {
    return { ...this.#counts };
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Takes an open file's kept blocks into account; the slot names it in `BlockRef`s. */
  admit(resident: Resident): number {
    const slot = this.#nextSlot;
    this.#nextSlot += 1;
    let coldCount = 0;
    for (const index of resident.file.kept()) {
      this.#used[resident.kind] += resident.file.costBytes(index);
      coldCount += 1;
    }
    this.#entries.set(slot, { ...resident, slot, coldCount });
    return slot;
  }

  /** The file is gone or closed; `release` its bytes separately when it is gone. */
  dismiss(slot: number): void {
    const entry = this.#entries.get(slot);
    if (entry === undefined) return;
    this.#entries.delete(slot);
    for (const index of entry.file.kept()) {
      this.#lru[entry.kind].delete({ slot, index });
      this.#used[entry.kind] -= entry.file.costBytes(index);
    }
  }

  addDormant(dormant: DormantFile): void {
    this.#dormant.set(`${dormant.kind}/${dormant.layerId}`, dormant);
    this.#used[dormant.kind] += dormant.bytes;
  }

  removeDormant(kind: StoreKind, layerId: string): void {
    const dormant = this.#dormant.get(`${kind}/${layerId}`);
    if (dormant === undefined) return;
    this.#dormant.delete(`${kind}/${layerId}`);
    this.#used[kind] -= dormant.bytes;
  }

  get dormant(): Iterable<DormantFile> {
    return this.#dormant.values();
  }

  /** The block is there now (its bytes were reserved before) and stays for a while. */
  added(slot: number, index: number): void {
    const entry = this.#entries.get(slot);
    if (entry === undefined) return;
    this.#lru[entry.kind].add({ slot, index }, this.#heldUntil());
  }

  /** The block was used; `isAnnounced`: a reader is about to be told that it is there. */
  touched(slot: number, index: number, isAnnounced: boolean): void {
    const entry = this.#entries.get(slot);
    if (entry === undefined) return;
    const lru = this.#lru[entry.kind];
    if (!lru.has({ slot, index })) {
      if (!isKept(entry.file, index)) return;
      entry.coldCount -= 1;
      lru.add({ slot, index }, 0);
    }
    lru.touch({ slot, index }, isAnnounced ? this.#heldUntil() : 0);
  }

  /** Makes room; false when there is none: then the caller writes nothing. */
  async reserve(kind: RoomKind, bytes: number): Promise<boolean> {
    const isAdmitted =
      (await this.#reserveQuota(kind, bytes)) && (await this.#hasDisk(kind, bytes));
    if (!isAdmitted) this.#counts.refusedWrites += 1;
    const nowMs = this.#dependencies.clock.nowMs();
    if (isAdmitted === this.#isRefusing && nowMs >= this.#saidAtMs + SAID_AGE_MS) {
      this.#isRefusing = !isAdmitted;
      this.#saidAtMs = nowMs;
      const fields = { usedBytes: this.usedBytes, quotaBytes: this.quotaBytes };
      if (isAdmitted) this.#dependencies.logger.info("cache-accepting", fields);
      else this.#dependencies.logger.warn("cache-full", { ...fields, freeBytes: this.#freeBytes });
    }
    return isAdmitted;
  }

  release(kind: RoomKind, bytes: number): void {
    this.#used[kind] -= bytes;
  }

  /** Bytes on disk that no block vouches for, until they are swept. */
  addUnknown(kind: StoreKind, bytes: number): void {
    this.#used[kind] += bytes;
  }

  /** A write found no space although the figures said so: makes some. */
  async onNoSpace(kind: StoreKind, bytes: number): Promise<boolean> {
    this.#counts.noSpaceErrors += 1;
    this.#freeBytesAtMs = -Infinity;
    return (await this.#evict(kind, bytes)) > 0;
  }

  /** Bytes that could be written without evicting anything. */
  get roomBytes(): number {
    return Math.max(0, this.quotaBytes - this.usedBytes);
  }

  /** Kept blocks of a file that may go now: neither held for a reader nor in use. */
  evictable(slot: number): number[] {
    const entry = this.#entries.get(slot);
    if (entry === undefined) return [];
    const nowMs = this.#dependencies.clock.nowMs();
    const lru = this.#lru[entry.kind];
    return [...entry.file.kept()].filter(
      (index) => !entry.file.pinned(index) && lru.heldUntilMs({ slot, index }) <= nowMs,
    );
  }

  /** Removes blocks of one file now; they must be unpinned. False when readers could not drop. */
  async evictBlocks(slot: number, indexes: readonly number[]): Promise<boolean> {
    const entry = this.#entries.get(slot);
    if (entry === undefined || indexes.length === 0) return true;
    return (await this.#evictGroup(entry, indexes)) !== undefined;
  }

  /** Removes a layer's dormant file. */
  async evictDormant(dormant: DormantFile): Promise<boolean> {
    const key = `${dormant.kind}/${dormant.layerId}`;
    if (this.#dormant.get(key) !== dormant) return true;
    this.#dormant.delete(key);
    try {
      await dormant.evict();
    } catch (error) {
      this.#dormant.set(key, dormant);
      this.#failed(dormant, error);
      return false;
    }
    this.#used[dormant.kind] -= dormant.bytes;
    this.#counts.evictedBlocks += dormant.blocks;
    this.#counts.evictedBytes += dormant.bytes;
    return true;
  }

  /** Brings usage below the quota (it may have been lowered since the last start). */
  async trim(): Promise<void> {
    while (this.usedBytes > this.quotaBytes) {
      if ((await this.#evict("decoded", this.usedBytes - this.quotaBytes)) === 0) return;
    }
  }

  /** What others wrote may have taken the reserve: brings free space back up to it. */
  async giveWay(): Promise<void> {
    await this.#refreshFree(this.#dependencies.clock.nowMs());
    const freeBytes = this.#freeBytes;
    const missing = this.#options.reserveBytes - freeBytes;
    if (missing <= 0) return;
    const evictedBytes = await this.#evict("decoded", missing);
    if (evictedBytes === 0) return;
    this.#freeBytesAtMs = -Infinity;
    this.#dependencies.logger.info("cache-gave-way", { freeBytes, evictedBytes });
  }

  /** Readers' drops within a limit; used for every removal. */
  async drop(layerId: string, ranges: readonly ByteRange[]): Promise<void> {
    const limit = new AbortController();
    const { clock, drop } = this.#dependencies;
    const cancel = clock.timer(this.#options.dropLimitMs, () => {
      const text = `readers of layer ${layerId} did not let go of blocks in time`;
      limit.abort(new DaemonError("deadline-exceeded", text));
    });
    try {
      const signal = AbortSignal.any([limit.signal, this.#closing.signal]);
      await raceAbort(drop(layerId, ranges, { signal }), signal);
    } finally {
      cancel();
    }
  }

  /** No more evictions; waits for those under way. */
  async close(): Promise<void> {
    this.#closing.abort(new DaemonError("canceled", "the cache is closing"));
    await Promise.allSettled(this.#evicting.values());
  }

  #heldUntil(): number {
    return this.#dependencies.clock.nowMs() + HOLD_MS;
  }

  async #reserveQuota(kind: RoomKind, bytes: number): Promise<boolean> {
    if (bytes > this.quotaBytes || this.isClosed) return false;
    const victims = victimsOf(kind);
    while (this.usedBytes + bytes > this.quotaBytes) {
      if ((await this.#evict(victims, this.usedBytes + bytes - this.quotaBytes)) === 0) {
        return false;
      }
    }
    this.#used[kind] += bytes;
    const headroom = Math.min(this.quotaBytes / 20, EVICTION_HEADROOM_BYTES);
    const over = this.usedBytes - (this.quotaBytes - headroom);
    if (over > 0 && victims === "decoded" && !this.#evicting.has("decoded")) {
      this.#evict("decoded", over).catch(() => undefined); // it logs its failures
    }
    return true;
  }

  /** After the quota said yes; on no the reservation is given back. */
  async #hasDisk(kind: RoomKind, bytes: number): Promise<boolean> {
    for (let round = 0; round < 3; round += 1) {
      const nowMs = this.#dependencies.clock.nowMs();
      const isStale =
        nowMs - this.#freeBytesAtMs > FREE_SPACE_AGE_MS ||
        this.#writtenSince + bytes > FREE_SPACE_AGE_BYTES;
      if (isStale) await this.#refreshFree(nowMs);
      const room = this.#freeBytes - this.#writtenSince - this.#options.reserveBytes;
      if (bytes <= room) {
        this.#writtenSince += bytes;
        return true;
      }
      this.#freeBytesAtMs = -Infinity;
      if ((await this.#evict(victimsOf(kind), bytes - room)) === 0) break;
    }
    this.#used[kind] -= bytes;
    return false;
  }

  async #refreshFree(nowMs: number): Promise<void> {
    try {
      this.#freeBytes = await this.#dependencies.freeBytes();
    } catch (error) {
      this.#dependencies.logger.warn("free-space-unknown", { err: error });
      this.#freeBytes = Infinity;
    }
    this.#freeBytesAtMs = nowMs;
    this.#writtenSince = 0;
  }

  /** Frees about `bytes` in one batch shared by all who wait; the result is what was freed. */
  async #evict(victims: StoreKind, bytes: number): Promise<number> {
    const running = this.#evicting.get(victims);
    if (running !== undefined) return running;
    if (this.isClosed || this.#dependencies.clock.nowMs() < this.#retryAtMs) return 0;
    const batch = Math.min(this.quotaBytes / 50, EVICTION_BATCH_BYTES);
    const work = this.#evictBatch(victims, Math.max(bytes, batch)).finally(() => {
      this.#evicting.delete(victims);
    });
    this.#evicting.set(victims, work);
    return work;
  }

  async #evictBatch(victims: StoreKind, bytes: number): Promise<number> {
    let freed = await this.#evictOldest("blobs", bytes);
    if (victims === "blobs" || freed >= bytes) return freed;
    const sleepers = [...this.#dormant.values()].sort((a, b) => a.useTimeMs - b.useTimeMs);
    for (const dormant of sleepers) {
      if (freed >= bytes) return freed;
      if (dormant.bytes > 0 && (await this.evictDormant(dormant))) freed += dormant.bytes;
    }
    if (freed < bytes) freed += await this.#evictOldest("decoded", bytes - freed);
    return freed;
  }

  /** Victims are chosen and taken in the same turn, so that nobody pins one in between. */
  async #evictOldest(kind: StoreKind, bytes: number): Promise<number> {
    const groups: Group = new Map();
    this.#collect(kind, bytes, groups);
    const done = await Promise.all(
      [...groups].map(async ([slot, indexes]) => this.#evictEntry(slot, indexes)),
    );
    return done.reduce((sum, each) => sum + each, 0);
  }

  async #evictEntry(slot: number, indexes: readonly number[]): Promise<number> {
    const entry = this.#entries.get(slot);
    return entry === undefined ? 0 : ((await this.#evictGroup(entry, indexes)) ?? 0);
  }

  /** Picks victims of one kind, oldest first, by slot. */
  #collect(kind: StoreKind, bytes: number, groups: Group): void {
    let found = 0;
    const take = (entry: Entry, index: number): void => {
      const group = groups.get(entry.slot) ?? [];
      group.push(index);
      groups.set(entry.slot, group);
      found += entry.file.costBytes(index);
    };
    const cold = [...this.#entries.values()].filter(
      (entry) => entry.kind === kind && entry.coldCount > 0,
    );
    for (const entry of cold.sort((a, b) => a.useTimeMs - b.useTimeMs)) {
      for (const index of entry.file.kept()) {
        if (found >= bytes) return;
        const isCold = !this.#lru[kind].has({ slot: entry.slot, index });
        if (isCold && !entry.file.pinned(index)) take(entry, index);
      }
    }
    const nowMs = this.#dependencies.clock.nowMs();
    let skipped = 0;
    for (const { slot, index, heldUntilMs } of this.#lru[kind]) {
      if (found >= bytes || skipped >= EVICTION_SKIPPED_MAX) break;
      const entry = this.#entries.get(slot);
      if (entry === undefined || heldUntilMs > nowMs || entry.file.pinned(index)) skipped += 1;
      else take(entry, index);
    }
  }

  /** Freed bytes; undefined when readers could not drop or the disk failed: all is as it was. */
  async #evictGroup(entry: Entry, indexes: readonly number[]): Promise<number | undefined> {
    const { file, kind, slot, layerId } = entry;
    const kept = indexes.filter((index) => isKept(file, index));
    const lru = this.#lru[kind];
    const cold = kept.filter((index) => !lru.has({ slot, index }));
    entry.coldCount -= cold.length;
    for (const index of kept) lru.delete({ slot, index });
    const bytes = kept.reduce((sum, index) => sum + file.costBytes(index), 0);
    const leaving = file.leave(indexes);
    let isDropped = false;
    try {
      if (kind === "decoded") {
        await this.drop(layerId, [...RangeSet.of(indexes.map((index) => file.reach(index)))]);
      }
      isDropped = true;
      await leaving.finish();
    } catch (error) {
      if (!isDropped) leaving.undo();
      this.#failed(entry, error);
      const back = kept.filter((index) => isKept(file, index));
      for (const index of back) lru.add({ slot, index }, 0);
      if (!isDropped || back.length > 0) return undefined;
    }
    this.#used[kind] -= bytes;
    this.#counts.evictedBlocks += kept.length;
    this.#counts.evictedBytes += bytes;
    return bytes;
  }

  #failed({ layerId, kind }: Pick<Entry, "layerId" | "kind">, error: unknown): void {
    this.#counts.failedEvictions += 1;
    if (this.isClosed) return;
    this.#retryAtMs = this.#dependencies.clock.nowMs() + EVICTION_RETRY_MS;
    this.#dependencies.logger.warn("eviction-failed", { layer: layerId, kind, err: error });
  }
}

function isKept(file: BlockFile, index: number): boolean {
  const state = file.state(index);
  return state === BLOCK_STATE.present || state === BLOCK_STATE.doubtful;
}
