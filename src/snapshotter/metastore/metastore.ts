/**
 * All snapshots: in memory, made durable by the journal.
 *
 * A transaction is checked against the newest state and joins the next frame (group commit: one
 * fdatasync for all that came while the last one ran). Readers see a transaction once it is
 * durable. When a write fails, every transaction that was not durable yet fails with it.
 */
import type { Clock } from "../../base/clock.ts";
import { DaemonError, withContext } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import {
  COMPACT_BYTES_MIN,
  COMPACT_FRAME_BYTES,
  COMPACT_GROWTH,
  GROUP_BYTES_MAX,
} from "../limits.ts";
import type { SnapshotRecord } from "../snapshot-info.ts";
import { Journal } from "./journal.ts";
import type { JournalFiles } from "./journal-files.ts";
import { encodeOperations, joinOperations, parseOperations } from "./records.ts";
import type { Operation } from "./records.ts";
import { State } from "./state.ts";

export interface Transaction {
  get(name: string): SnapshotRecord | undefined;
  hasChildren(name: string): boolean;
  put(record: SnapshotRecord): void;
  delete(name: string): void;
  setOwner(uuid: string): void;
  /** Now, never before a time given out earlier. */
  now(): bigint;
}

interface Waiting {
  readonly operations: readonly Operation[];
  readonly payload: Buffer;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface MetastoreOptions {
  readonly files: JournalFiles;
  readonly clock: Clock;
  readonly log: Logger;
  /** Bytes below which the journal is not compacted. */
  readonly compactBytesMin?: number;
}

export class Metastore implements AsyncDisposable {
  readonly #journal: Journal;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #compactBytesMin: number;
  /** Durable. */
  readonly #visible: State;
  /** With the transactions that wait for the disk. */
  #latest: State;
  #queue: Waiting[] = [];
  #writer: Promise<void> | undefined;
  #compactedBytes: number;
  #lastNs: bigint;
  #nextId: number;
  #isClosed = false;

  private constructor(options: MetastoreOptions, journal: Journal, state: State) {
    this.#journal = journal;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#compactBytesMin = options.compactBytesMin ?? COMPACT_BYTES_MIN;
    this.#visible = state;
    this.#latest = new State(state);
    this.#nextId = state.nextId;
    this.#compactedBytes = 0;
    this.#lastNs = 0n;
    for (const record of state.records()) {
      if (record.updatedNs > this.#lastNs) this.#lastNs = record.updatedNs;
    }
  }

  /** Throws `data-loss` when the journal is damaged: nothing is repaired silently. */
  static async open(options: MetastoreOptions): Promise<Metastore> {
    try {
      const { journal, payloads, tornBytes } = await Journal.open(options.files);
      const state = new State();
      for (const payload of payloads ?? []) {
        for (const operation of parseOperations(payload)) state.apply(operation);
      }
      if (tornBytes > 0) options.log.info("metastore-tail-cut", { bytes: tornBytes });
      const metastore = new Metastore(options, journal, state);
      if (payloads === undefined) await metastore.#compact();
      else if (metastore.#isDueForCompaction()) await metastore.#tryCompact();
      return metastore;
    } catch (error) {
      throw withContext(error, "cannot open the metastore");
    }
  }

  get(name: string): SnapshotRecord | undefined {
    return this.#visible.get(name);
  }

  records(): IterableIterator<SnapshotRecord> {
    return this.#visible.records();
  }

  get size(): number {
    return this.#visible.size;
  }

  /** UUID of the containerd whose snapshots these are; undefined when none was reachable yet. */
  get owner(): string | undefined {
    return this.#visible.owner;
  }

  get journalBytes(): number {
    return this.#journal.bytes;
  }

  /** An id that no snapshot has or had. */
  reserveId(): number {
    const id = this.#nextId;
    this.#nextId += 1;
    return id;
  }

  /**
   * Runs `work` at once; what it threw is thrown and nothing has changed. Resolves with its result
   * when the changes are durable.
   */
  async transact<T>(work: (transaction: Transaction) => T): Promise<T> {
    if (this.#isClosed) throw new DaemonError("unavailable", "metastore is closed");
    const operations: Operation[] = [];
    const result = work(this.#transaction(operations));
    if (operations.length === 0) return result;
    const payload = encodeOperations(operations);
    for (const operation of operations) this.#latest.apply(operation);
    await new Promise<void>((resolve, reject) => {
      this.#queue.push({ operations, payload, resolve, reject });
      this.#writer ??= this.#write();
    });
    return result;
  }

  #transaction(operations: Operation[]): Transaction {
    // Reads see the state before the transaction: each writes a name only once.
    return {
      get: (name) => this.#latest.get(name),
      hasChildren: (name) => this.#latest.hasChildren(name),
      put: (record) => operations.push({ kind: "put", record }),
      delete: (name) => operations.push({ kind: "delete", name }),
      setOwner: (uuid) => operations.push({ kind: "owner", uuid }),
      now: () => {
        const now = this.#clock.wallNs();
        this.#lastNs = now > this.#lastNs ? now : this.#lastNs + 1n;
        return this.#lastNs;
      },
    };
  }

  async #write(): Promise<void> {
    while (this.#queue.length > 0) {
      const group = this.#nextGroup();
      try {
        if (this.#journal.isBroken) await this.#compact();
        const operations = group.flatMap((waiting) => waiting.operations);
        await this.#journal.append(joinOperations(group.map((waiting) => waiting.payload)));
        for (const operation of operations) this.#visible.apply(operation);
      } catch (error) {
        this.#rollBack(group, error);
        continue;
      }
      for (const waiting of group) waiting.resolve();
      if (this.#isDueForCompaction()) await this.#tryCompact();
    }
    this.#writer = undefined;
  }

  /** At least one transaction; more as long as they fit one frame. */
  #nextGroup(): Waiting[] {
    let bytes = 0;
    let count = 0;
    for (const { payload } of this.#queue) {
      bytes += payload.length;
      if (count > 0 && bytes > GROUP_BYTES_MAX) break;
      count += 1;
    }
    return this.#queue.splice(0, count);
  }

  /** What came later may build on what failed: all of it fails. */
  #rollBack(group: readonly Waiting[], error: unknown): void {
    const failed = [...group, ...this.#queue];
    this.#queue = [];
    this.#latest = new State(this.#visible);
    this.#log.error("metastore-write-failed", { err: error, transactions: failed.length });
    for (const waiting of failed) waiting.reject(error);
  }

  #isDueForCompaction(): boolean {
    const limit = Math.max(this.#compactBytesMin, this.#compactedBytes * COMPACT_GROWTH);
    return this.#journal.bytes > limit;
  }

  /** The old journal is whole: without space for a new one, life goes on with it. */
  async #tryCompact(): Promise<void> {
    try {
      await this.#compact();
    } catch (error) {
      this.#log.warn("metastore-compaction-failed", { err: error });
      // Not again at the next transaction.
      this.#compactedBytes = this.#journal.bytes;
    }
  }

  async #compact(): Promise<void> {
    await this.#journal.rewrite(this.#compactedPayloads());
    this.#compactedBytes = this.#journal.bytes;
  }

  *#compactedPayloads(): Generator<Uint8Array> {
    const state = this.#visible;
    let operations: Operation[] = [{ kind: "begin", nextId: this.#nextId }];
    if (state.owner !== undefined) operations.push({ kind: "owner", uuid: state.owner });
    let bytes = 0;
    for (const record of state.records()) {
      operations.push({ kind: "put", record });
      bytes += 200 + record.name.length + record.parent.length;
      for (const [key, value] of record.labels) bytes += key.length + value.length + 6;
      if (bytes < COMPACT_FRAME_BYTES) continue;
      yield encodeOperations(operations);
      operations = [];
      bytes = 0;
    }
    if (operations.length > 0) yield encodeOperations(operations);
  }

  /** Waits for what was begun; later transactions fail with `unavailable`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#writer;
    await this.#journal[Symbol.asyncDispose]();
  }
}
