/** Exactly the bytes that were asked for, over as many connections as it takes. */
import { createHash } from "node:crypto";
import { abortReason, throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorCode, RETRYABLE, withContext } from "../base/errors.ts";
import type { Random } from "../base/random.ts";
import { digestFromHash } from "../oci/index.ts";
import type { Digest } from "../oci/index.ts";
import type { BlobBody, BlobSpan } from "./blob-body.ts";
import {
  ATTEMPTS_MAX,
  IDLE_READER_MS,
  RESUME_PROGRESS_BYTES,
  SLOW_BYTES_MIN,
  SLOW_WINDOW_MS,
} from "./limits.ts";
import { backoffMs } from "./retry.ts";

export interface BlobStreamOptions {
  readonly digest: Digest;
  readonly span: BlobSpan;
  readonly size: number | undefined;
  /** Hash and compare at the end; only for a whole blob. */
  readonly isVerified: boolean;
  readonly signal: AbortSignal;
}

export interface BlobStreamDeps {
  readonly clock: Clock;
  readonly random: Random;
  /** Opens the rest after a body broke. */
  readonly openBody: (span: BlobSpan) => Promise<BlobBody>;
  /** The bytes' last server sent something wrong. */
  readonly onCorrupt: () => void;
}

/** Begins with a body that is open already; iterable once. */
export class BlobStream implements AsyncIterable<Uint8Array> {
  readonly #options: BlobStreamOptions;
  readonly #deps: BlobStreamDeps;
  #body: BlobBody;
  #offset: number;
  #end: number | undefined;
  #bodyStart: number;
  #failures = 0;
  /** Waiting time and bytes since the window began. */
  #window = { waitedMs: 0, bytes: 0 };
  #cancelIdleTimer: () => void;
  #isTaken = false;

  constructor(first: BlobBody, options: BlobStreamOptions, deps: BlobStreamDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#body = first;
    this.#offset = options.span.start;
    this.#bodyStart = this.#offset;
    this.#end = options.span.end ?? first.blobBytes ?? options.size;
    this.#cancelIdleTimer = this.#startIdleTimer();
  }

  [Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    if (this.#isTaken) {
      throw new DaemonError("failed-precondition", "a blob stream can be iterated once");
    }
    this.#isTaken = true;
    return this.#run();
  }

  /** A reader that has gone elsewhere holds neither a connection nor a place in the queue. */
  #startIdleTimer(): () => void {
    return this.#deps.clock.timer(IDLE_READER_MS, () => {
      this.#body.close();
    });
  }

  async *#run(): AsyncGenerator<Uint8Array, void, undefined> {
    const hash = this.#options.isVerified ? createHash("sha256") : undefined;
    try {
      for (;;) {
        this.#cancelIdleTimer();
        const piece = await this.#next();
        if (piece === undefined) break;
        hash?.update(piece);
        this.#offset += piece.length;
        this.#cancelIdleTimer = this.#startIdleTimer();
        yield piece;
      }
    } finally {
      this.#cancelIdleTimer();
      this.#body.close();
    }
    if (hash === undefined) return;
    const actual = digestFromHash(hash.digest());
    if (actual === this.#options.digest) return;
    this.#deps.onCorrupt();
    throw new DaemonError("data-loss", `blob ${this.#options.digest} hashes to ${actual}`);
  }

  /** Undefined at the end of what was asked for. */
  async #next(): Promise<Uint8Array | undefined> {
    const { signal } = this.#options;
    for (;;) {
      throwIfAborted(signal);
      try {
        // Closed already: parked while nobody read.
        if (!this.#body.isClosed) {
          const piece = await this.#nextOfBody();
          if (piece !== undefined) return piece;
          if (this.#end === undefined) return undefined;
          if (this.#offset !== this.#end) this.#checkShortBody();
        }
        if (this.#offset === this.#end) return undefined;
      } catch (error) {
        if (signal.aborted) throw abortReason(signal);
        if (!RETRYABLE[errorCode(error)]) throw error;
        this.#countFailure(error);
      }
      await this.#reopen();
    }
  }

  /** A trickling server keeps every timeout from firing: too little in a window is a failure. */
  async #nextOfBody(): Promise<Uint8Array | undefined> {
    const { clock } = this.#deps;
    const startedMs = clock.nowMs();
    const piece = await this.#body.next();
    const waitedMs = this.#window.waitedMs + clock.nowMs() - startedMs;
    const bytes = this.#window.bytes + (piece?.length ?? 0);
    this.#window = { waitedMs, bytes };
    if (waitedMs < SLOW_WINDOW_MS) return piece;
    this.#window = { waitedMs: 0, bytes: 0 };
    if (piece === undefined || bytes >= SLOW_BYTES_MIN) return piece;
    throw new DaemonError(
      "unavailable",
      `${this.#body.endpoint.name} sent ${bytes} bytes of blob ${this.#options.digest} ` +
        `in ${SLOW_WINDOW_MS} ms`,
    );
  }

  /** A server may send less than the range (in good pieces); anything else was cut off. */
  #checkShortBody(): void {
    if (this.#offset === this.#body.end && this.#hasProgress) return;
    throw new DaemonError(
      "unavailable",
      `blob ${this.#options.digest} ended at ${this.#offset} of ${this.#end ?? "?"} bytes`,
    );
  }

  get #hasProgress(): boolean {
    return this.#offset - this.#bodyStart >= RESUME_PROGRESS_BYTES;
  }

  /** Throws when the last ATTEMPTS_MAX bodies brought nothing to speak of. */
  #countFailure(error: unknown): void {
    this.#body.close();
    this.#failures = this.#hasProgress ? 1 : this.#failures + 1;
    this.#body.endpoint.noteFailure(error);
    if (this.#failures < ATTEMPTS_MAX) return;
    throw withContext(error, `gave up on blob ${this.#options.digest} at byte ${this.#offset}`);
  }

  async #reopen(): Promise<void> {
    const { clock, random, openBody } = this.#deps;
    if (this.#failures > 0) {
      await clock.sleep(backoffMs(this.#failures, random), { signal: this.#options.signal });
    }
    this.#bodyStart = this.#offset;
    this.#window = { waitedMs: 0, bytes: 0 };
    this.#body = await openBody({ start: this.#offset, end: this.#options.span.end });
    this.#end ??= this.#body.blobBytes;
  }
}
