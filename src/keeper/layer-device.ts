/**
 * A layer's data device: its tar stream as one flat file. Ranges that the image service called
 * present are read from the decoded file; everything else is asked for. A hole of that sparse file
 * reads as zeros, so a range counts only from "present" until "drop", and a drop is answered only
 * when no read of the range is under way any more.
 */
import { read } from "node:fs";
import { open } from "node:fs/promises";
import { DaemonError, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { RangeSet } from "../base/range-set.ts";
import type { ByteRange } from "../base/range-set.ts";
import type { FetchQueue } from "./fetch-queue.ts";
import type { TouchedLog } from "./touched-log.ts";

/** Answers of one read that did not bring it further (evicted at once again, …). */
export const FETCH_ROUNDS_MAX = 64;
/** How long a read waits for the image service when nobody said otherwise. */
export const READ_WAIT_MS = 300_000;

export interface ReadCounters {
  reads: number;
  readsPresent: number;
  readsMissed: number;
  bytes: number;
}

export interface LayerService {
  readonly size: number;
  readonly tarBytes: number;
  readonly decodedPath: string;
  readonly present: readonly ByteRange[];
  readonly readWaitMs: number | undefined;
}

/** The decoded file, open for reading. */
export interface DecodedFile {
  /** As read(2): how many bytes it got; 0 at the end. */
  read(target: Uint8Array, at: number, length: number, position: number): Promise<number>;
  close(): Promise<void>;
}

export interface LayerDeviceOptions {
  readonly layer: string;
  readonly queue: FetchQueue;
  readonly touched: TouchedLog;
  readonly counters: ReadCounters;
  readonly log: Logger;
  /** Injected so that tests decide what comes between two reads. */
  readonly openFile?: (path: string) => Promise<DecodedFile>;
}

interface ActiveRead extends ByteRange {
  readonly waiters: (() => void)[];
}

export class LayerDevice implements AsyncDisposable {
  readonly #options: LayerDeviceOptions;
  #service: LayerService;
  #file: DecodedFile | undefined;
  #present = new RangeSet();
  /** What will be present once the file of a new `serve` is open. */
  #incoming: RangeSet | undefined;
  #opening: Promise<void> | undefined;
  readonly #active = new Set<ActiveRead>();
  /** Changes whenever something may have left `#present`. */
  #dropEpoch = 0;
  #isClosed = false;

  constructor(service: LayerService, options: LayerDeviceOptions) {
    this.#service = service;
    this.#options = options;
  }

  get size(): number {
    return this.#service.size;
  }

  /**
   * Takes over what the image service says now: nothing known before counts any more, from the
   * moment of the call. Resolves when reads of the old state have ended.
   */
  async serve(service: LayerService): Promise<void> {
    const known = this.#service;
    if (service.size !== known.size || service.tarBytes !== known.tarBytes) {
      throw new DaemonError(
        "invalid-argument",
        `layer ${this.#options.layer}: ${service.tarBytes} bytes, served before with ${known.tarBytes}`,
      );
    }
    this.#service = service;
    this.#dropEpoch += 1;
    this.#present = new RangeSet();
    const incoming = RangeSet.of(service.present);
    this.#incoming = incoming;
    const opening = this.#open(service, incoming);
    this.#opening = opening;
    try {
      await opening;
    } catch (error) {
      if (this.#incoming === incoming) {
        // The file known before may not be the one that the image service fills now.
        this.#incoming = undefined;
        const old = this.#file;
        this.#file = undefined;
        await this.#drained({ start: 0, end: service.size });
        await old?.close();
      }
      throw withContext(error, `layer ${this.#options.layer}: cannot open its decoded file`);
    } finally {
      if (this.#opening === opening) this.#opening = undefined;
    }
  }

  async #open(service: LayerService, incoming: RangeSet): Promise<void> {
    const file = await (this.#options.openFile ?? openDecoded)(service.decodedPath);
    if (this.#incoming !== incoming || this.#isClosed) {
      await file.close(); // a newer `serve` has taken over
      return;
    }
    const old = this.#file;
    this.#file = file;
    this.#present = incoming;
    this.#incoming = undefined;
    if (old === undefined) return;
    await this.#drained({ start: 0, end: service.size });
    await old.close();
  }

  addPresent(ranges: readonly ByteRange[]): void {
    const present = this.#incoming ?? this.#present;
    for (const { start, end } of ranges) {
      present.add({ start, end: Math.min(end, this.#service.tarBytes) });
    }
  }

  async drop(ranges: readonly ByteRange[]): Promise<void> {
    this.#dropEpoch += 1;
    for (const range of ranges) {
      this.#present.remove(range);
      this.#incoming?.remove(range);
      this.#options.queue.noteDropped(this.#options.layer, range);
    }
    await Promise.all(ranges.map((range) => this.#drained(range)));
  }

  /** Resolves when the reads that are under way in the range now have ended. */
  async #drained(range: ByteRange): Promise<void> {
    const waits: Promise<void>[] = [];
    for (const active of this.#active) {
      if (active.start >= range.end || active.end <= range.start) continue;
      waits.push(new Promise((resolve) => active.waiters.push(resolve)));
    }
    await Promise.all(waits);
  }

  /** Fills the buffer whole (or up to the device's end), or throws. */
  async read(buffer: Uint8Array, offset: number): Promise<number> {
    const { counters, touched, layer } = this.#options;
    const { size, tarBytes } = this.#service;
    const length = Math.min(buffer.length, size - offset);
    if (length <= 0) return 0;
    const end = Math.min(offset + length, tarBytes);
    counters.reads += 1;
    counters.bytes += length;
    if (end < offset + length) buffer.fill(0, Math.max(end - offset, 0), length);
    if (offset >= end) return length;
    touched.note(layer, offset, end);
    let isMissed = false;
    let rounds = 0;
    for (let cursor = offset; cursor < end;) {
      while (this.#opening !== undefined) await this.#opening.catch(() => undefined);
      const missing = this.#present.missing({ start: cursor, end })[0];
      const target = buffer.subarray(cursor - offset);
      if (missing === undefined || missing.start > cursor) {
        const bytes = (missing?.start ?? end) - cursor;
        if (await this.#readPresent(target, cursor, bytes)) cursor += bytes;
      } else {
        isMissed = true;
        const bytes = await this.#fetch(target, missing);
        cursor += bytes;
        rounds += bytes === 0 ? 1 : 0;
        if (rounds >= FETCH_ROUNDS_MAX) {
          throw new DaemonError("data-loss", `layer ${layer} at ${cursor}: present, then gone`);
        }
      }
    }
    if (isMissed) counters.readsMissed += 1;
    else counters.readsPresent += 1;
    return length;
  }

  /** False when the range was dropped meanwhile, or the file turned out shorter. */
  async #readPresent(target: Uint8Array, start: number, bytes: number): Promise<boolean> {
    const epoch = this.#dropEpoch;
    const end = start + bytes;
    const done = await this.#pread(target, start, bytes);
    if (done < bytes) {
      this.#options.log.error("decoded-file-short", {
        path: this.#service.decodedPath,
        start,
        end,
      });
      this.#present.remove({ start: start + done, end });
      return false;
    }
    return epoch === this.#dropEpoch || this.#present.has({ start, end });
  }

  async #pread(target: Uint8Array, start: number, bytes: number): Promise<number> {
    const file = this.#file;
    if (file === undefined) throw new DaemonError("internal", "the decoded file is not open");
    const active: ActiveRead = { start, end: start + bytes, waiters: [] };
    this.#active.add(active);
    try {
      let done = 0;
      while (done < bytes) {
        const piece = await file.read(target, done, bytes - done, start + done);
        if (piece === 0) break;
        done += piece;
      }
      return done;
    } finally {
      this.#active.delete(active);
      for (const wake of active.waiters) wake();
    }
  }

  /** The bytes written to `target`: 0 when the range has become present instead. */
  async #fetch(target: Uint8Array, range: ByteRange): Promise<number> {
    const { queue, layer } = this.#options;
    const waitMs = this.#service.readWaitMs ?? READ_WAIT_MS;
    const answer = await queue.fetch(layer, range, waitMs, (ranges) => {
      this.addPresent(ranges);
    });
    if (answer.data.length > 0) {
      target.set(answer.data);
      return answer.data.length;
    }
    return 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#present = new RangeSet();
    this.#incoming = undefined;
    await this.#drained({ start: 0, end: this.#service.size });
    await this.#file?.close();
    this.#file = undefined;
  }
}

async function openDecoded(path: string): Promise<DecodedFile> {
  const handle = await open(path, "r");
  return {
    read: (target, at, length, position) =>
      new Promise((resolve, reject) => {
        read(handle.fd, target, at, length, position, (error, bytes) => {
          if (error === null) resolve(bytes);
          else reject(error);
        });
      }),
    close: () => handle.close(),
  };
}
