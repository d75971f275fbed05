/** One answer to one request for (a part of) a blob, placed at its offset in the blob. */
import { DaemonError } from "../base/errors.ts";
import { parseContentRange, parseLength } from "./content-range.ts";
import type { Endpoint, EndpointResponse } from "./endpoint.ts";

/** What was asked for; `end` undefined is "to the blob's end". */
export interface BlobSpan {
  readonly start: number;
  readonly end: number | undefined;
}

export interface BlobBodyOptions {
  readonly span: BlobSpan;
  /** The blob's size if known. */
  readonly size: number | undefined;
  readonly what: string;
  readonly signal: AbortSignal;
}

interface Placement {
  /** Bytes of the body before the first that was asked for. */
  readonly skip: number;
  /** Where this body ends in the blob, as far as it matters to us; undefined until it ends. */
  readonly end: number | undefined;
  /** Whether the body holds more than we want. */
  readonly isLonger: boolean;
  readonly blobBytes: number | undefined;
}

function checkSize(actual: number | undefined, options: BlobBodyOptions): void {
  const { size, what } = options;
  if (actual === undefined || size === undefined || actual === size) return;
  throw new DaemonError("data-loss", `${what} has ${actual} bytes in the registry, not ${size}`);
}

function outOfRange({ what, span }: BlobBodyOptions, blobBytes: number): DaemonError {
  const asked = `${span.start} to ${span.end ?? "its end"}`;
  return new DaemonError("out-of-range", `${what} has ${blobBytes} bytes, asked for ${asked}`);
}

function placePart(answer: EndpointResponse, options: BlobBodyOptions): Placement {
  const { span, what, size } = options;
  const range = parseContentRange(answer.response.header("content-range"));
  if (range?.start !== span.start || (span.end !== undefined && range.end > span.end)) {
    const origin = answer.response.url.origin;
    throw new DaemonError("data-loss", `${origin} sent another range of ${what}`);
  }
  checkSize(range.total, options);
  if (span.end !== undefined && range.total !== undefined && span.end > range.total) {
    throw outOfRange(options, range.total);
  }
  const blobBytes = range.total ?? size;
  return { skip: 0, end: range.end, isLonger: false, blobBytes };
}

function placeWhole(
  answer: EndpointResponse,
  endpoint: Endpoint,
  options: BlobBodyOptions,
): Placement {
  const { span } = options;
  const length = parseLength(answer.response.header("content-length"));
  checkSize(length, options);
  const blobBytes = length ?? options.size;
  const isPartWanted = span.start > 0 || (span.end !== undefined && span.end !== blobBytes);
  if (isPartWanted) endpoint.noteRangeIgnored(answer.response.url.origin);
  if (span.end !== undefined && blobBytes !== undefined && span.end > blobBytes) {
    throw outOfRange(options, blobBytes);
  }
  const end = span.end ?? blobBytes;
  return { skip: span.start, end, isLonger: end !== blobBytes, blobBytes };
}

/** Holds a connection and a place in the host's queue until it ends or is closed. */
export class BlobBody {
  readonly endpoint: Endpoint;
  /** Where in the blob this body ends; undefined when only its end will tell. */
  readonly end: number | undefined;
  readonly blobBytes: number | undefined;
  readonly #answer: EndpointResponse;
  readonly #pieces: AsyncGenerator<Uint8Array, void, undefined>;
  readonly #isLonger: boolean;
  readonly #signal: AbortSignal;
  #skip: number;
  /** Bytes still to hand out; undefined is unknown. */
  #rest: number | undefined;
  #isClosed = false;
  readonly #onAbort: () => void;

  private constructor(
    answer: EndpointResponse,
    endpoint: Endpoint,
    placement: Placement,
    options: BlobBodyOptions,
  ) {
    this.endpoint = endpoint;
    this.end = placement.end;
    this.blobBytes = placement.blobBytes;
    this.#answer = answer;
    this.#pieces = answer.response.pieces();
    this.#isLonger = placement.isLonger;
    this.#skip = placement.skip;
    this.#rest = placement.end === undefined ? undefined : placement.end - options.span.start;
    this.#signal = options.signal;
    this.#onAbort = () => {
      this.close();
    };
    this.#signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Throws, and gives everything back, when the answer is not what was asked for. */
  static of(answer: EndpointResponse, endpoint: Endpoint, options: BlobBodyOptions): BlobBody {
    try {
      const encoding = answer.response.header("content-encoding") ?? "identity";
      if (encoding !== "identity" && encoding !== "") {
        throw new DaemonError(
          "failed-precondition",
          `${answer.response.url.origin} sent ${options.what} with a content encoding`,
        );
      }
      const placement =
        answer.response.status === 206
          ? placePart(answer, options)
          : placeWhole(answer, endpoint, options);
      return new BlobBody(answer, endpoint, placement, options);
    } catch (error) {
      answer.response.destroy();
      answer.release();
      throw error;
    }
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** The next non-empty piece, or undefined at the end; a body that ends too soon just ends. */
  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      if (this.#rest === 0 && this.#isLonger) {
        this.close();
        return undefined;
      }
      const result = await this.#pieces.next();
      if (result.done === true) {
        this.close();
        return undefined;
      }
      const piece = this.#take(result.value);
      if (piece.length > 0) return piece;
      if (this.#rest === 0) {
        this.close();
        return undefined;
      }
    }
  }

  #take(piece: Uint8Array): Uint8Array {
    const skipped = Math.min(this.#skip, piece.length);
    this.#skip -= skipped;
    const kept = piece.subarray(skipped, skipped + (this.#rest ?? piece.length));
    if (this.#rest !== undefined) this.#rest -= kept.length;
    return kept;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#signal.removeEventListener("abort", this.#onAbort);
    this.#answer.response.destroy();
    this.#answer.release();
  }
}
