/**
 * Reads that wait for the image service. They are sent to the connection that said Hello last and
 * all of them again to the next one after it: an image service may die, hang up or be replaced at
 * any time and no reader notices. Waiting costs no thread of ours and no slot that a present block
 * would need.
 */
import type { Clock } from "../base/clock.ts";
import { DaemonError, errorCode, RETRYABLE } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { ByteRange } from "../base/range-set.ts";
import { RangeSet } from "../base/range-set.ts";
import { parseFetchAnswer } from "./messages.ts";
import type { FetchAnswer } from "./messages.ts";

/** Below the other side's limit of calls under way (4,096), with room for other calls. */
export const FETCHES_IN_FLIGHT_MAX = 4000;
/** Waiting reads altogether: each holds a libfuse thread. Beyond it a read ends with EIO. */
export const WAITING_READS_MAX = 16_384;
const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 2000;

/** The part of a control connection that is needed here. */
export interface FetchLink {
  readonly isClosed: boolean;
  call(
    method: string,
    request: object,
    options: { readonly signal: AbortSignal },
  ): Promise<unknown>;
}

interface WaitingFetch {
  readonly layer: string;
  readonly range: ByteRange;
  readonly resolve: (answer: FetchAnswer) => void;
  readonly onPresent: (ranges: readonly ByteRange[]) => void;
  readonly reject: (error: DaemonError) => void;
  /** Set while sent. */
  controller: AbortController | undefined;
  /** Ranges dropped since it was sent: an answer may have been written before the drop. */
  dropped: ByteRange[];
  retries: number;
  cancelTimers: (() => void)[];
}

export class FetchQueue {
  readonly #clock: Clock;
  readonly #log: Logger;
  #link: FetchLink | undefined;
  readonly #waiting = new Set<WaitingFetch>();
  /** Those of `#waiting` that are to be sent as soon as there is a link and room. */
  readonly #unsent = new Set<WaitingFetch>();
  #inFlight = 0;

  constructor(options: { readonly clock: Clock; readonly log: Logger }) {
    this.#clock = options.clock;
    this.#log = options.log;
  }

  get size(): number {
    return this.#waiting.size;
  }

  get link(): FetchLink | undefined {
    return this.#link;
  }

  /** The newest image service wins; everything that waits is sent to it. */
  attach(link: FetchLink): void {
    this.#link = link;
    for (const fetch of this.#waiting) this.#unsend(fetch, true);
    if (this.#waiting.size > 0) this.#log.info("fetches-resent", { count: this.#waiting.size });
    this.#pump();
  }

  /** The image service left: what waits goes on waiting. */
  detach(link: FetchLink): void {
    if (this.#link !== link) return;
    this.#link = undefined;
    for (const fetch of this.#waiting) this.#unsend(fetch, true);
  }

  /**
   * Waits until the image service has made the range readable, or hands its bytes over.
   * `deadline-exceeded` after `waitMs`. `onPresent` is called with what is present as soon as that
   * is known, so that no drop comes between: a promise settles a few turns later.
   */
  async fetch(
    layer: string,
    range: ByteRange,
    waitMs: number,
    onPresent: (ranges: readonly ByteRange[]) => void = () => undefined,
  ): Promise<FetchAnswer> {
    if (this.#waiting.size >= WAITING_READS_MAX) {
      throw new DaemonError("resource-exhausted", `over ${WAITING_READS_MAX} reads are waiting`);
    }
    return new Promise((resolve, reject) => {
      const fetch: WaitingFetch = {
        layer,
        range,
        resolve,
        onPresent,
        reject,
        controller: undefined,
        dropped: [],
        retries: 0,
        cancelTimers: [],
      };
      const expire = (): void => {
        const what = `${layer.slice(0, 12)} ${range.start}-${range.end}`;
        this.#finish(fetch);
        reject(new DaemonError("deadline-exceeded", `no data for ${what} within ${waitMs} ms`));
      };
      fetch.cancelTimers.push(this.#clock.timer(waitMs, expire));
      this.#waiting.add(fetch);
      this.#unsent.add(fetch);
      this.#pump();
    });
  }

  /** Tells fetches under way that an answer may claim what is no longer there. */
  noteDropped(layer: string, range: ByteRange): void {
    for (const fetch of this.#waiting) {
      if (fetch.layer === layer && fetch.controller !== undefined) fetch.dropped.push(range);
    }
  }

  /** Ends the waits of a layer that is no longer served. */
  cancelLayer(layer: string, error: DaemonError): void {
    for (const fetch of [...this.#waiting]) {
      if (fetch.layer !== layer) continue;
      this.#finish(fetch);
      fetch.reject(error);
    }
  }

  #pump(): void {
    for (const fetch of this.#unsent) {
      const link = this.#link;
      if (link === undefined || this.#inFlight >= FETCHES_IN_FLIGHT_MAX) return;
      this.#unsent.delete(fetch);
      void this.#send(fetch, link);
    }
  }

  /** Never rejects. */
  async #send(fetch: WaitingFetch, link: FetchLink): Promise<void> {
    const controller = new AbortController();
    fetch.controller = controller;
    fetch.dropped = [];
    this.#inFlight += 1;
    const request = { layer: fetch.layer, start: fetch.range.start, end: fetch.range.end };
    try {
      const value = await link.call("Fetcher.Fetch", request, { signal: controller.signal });
      const answer = parseFetchAnswer(value, fetch.range);
      if (fetch.controller !== controller) return; // sent again to a newer link, or ended
      const present = RangeSet.of(answer.present);
      for (const range of fetch.dropped) present.remove(range);
      this.#finish(fetch);
      fetch.onPresent([...present]);
      fetch.resolve({ present: [...present], data: answer.data });
    } catch (error) {
      if (fetch.controller === controller) this.#onFailure(fetch, link, error);
    } finally {
      this.#inFlight -= 1;
      this.#pump();
    }
  }

  #onFailure(fetch: WaitingFetch, link: FetchLink, error: unknown): void {
    if (link.isClosed || this.#link !== link) {
      this.#unsend(fetch, true);
      return;
    }
    const code = errorCode(error);
    // "deadline-exceeded" is its last word: it has waited as long as a read may.
    const isFinal = !RETRYABLE[code] || code === "deadline-exceeded";
    if (code !== "canceled" && isFinal) {
      this.#finish(fetch);
      fetch.reject(new DaemonError(code, "the image service cannot read it", { cause: error }));
      return;
    }
    // It is alive but cannot now (starting, stopping, over its own limits): ask it again.
    this.#unsend(fetch, false);
    const delayMs = Math.min(RETRY_MS_MIN * 2 ** fetch.retries, RETRY_MS_MAX);
    fetch.retries = Math.min(fetch.retries + 1, 16);
    const again = (): void => {
      if (!this.#waiting.has(fetch) || fetch.controller !== undefined) return;
      this.#unsent.add(fetch);
      this.#pump();
    };
    fetch.cancelTimers.push(this.#clock.timer(delayMs, again));
    this.#log.debug("fetch-retried", { layer: fetch.layer, delayMs, err: error });
  }

  #unsend(fetch: WaitingFetch, now: boolean): void {
    const controller = fetch.controller;
    fetch.controller = undefined;
    if (now) this.#unsent.add(fetch);
    controller?.abort(new DaemonError("canceled", "asked of another image service"));
  }

  #finish(fetch: WaitingFetch): void {
    this.#waiting.delete(fetch);
    this.#unsent.delete(fetch);
    for (const cancel of fetch.cancelTimers) cancel();
    const controller = fetch.controller;
    fetch.controller = undefined;
    controller?.abort(new DaemonError("canceled", "no longer needed"));
  }
}
