/**
 * Progress of bytes: a bar with rate and remaining time that redraws itself on a terminal, plain
 * lines now and then elsewhere (a log file, a CI job).
 */
import type { Clock } from "../base/clock.ts";
import { formatBytes, formatDuration, formatPercent } from "./format.ts";
import { COLUMNS_DEFAULT, printable } from "./terminal.ts";
import type { OutputStream } from "./terminal.ts";

/** The rate is that of the last few seconds: long enough to be calm, short enough to be true. */
const RATE_WINDOW_MS = 5000;
const RATE_SAMPLES_MAX = 128;
const REDRAW_INTERVAL_MS = 100;
const PLAIN_INTERVAL_MS = 5000;
const BAR_CELLS_MAX = 30;
const BAR_CELLS_MIN = 8;

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

/** Bytes a second over a sliding window. */
export class RateMeter {
  readonly #samples: Sample[] = [];

  add(sample: Sample): void {
    this.#samples.push(sample);
    const oldest = (): Sample | undefined => this.#samples[1];
    while (
      this.#samples.length > RATE_SAMPLES_MAX ||
      sample.atMs - (oldest()?.atMs ?? sample.atMs) > RATE_WINDOW_MS
    ) {
      this.#samples.shift();
    }
  }

  /** Undefined until there are two moments to compare. */
  get bytesPerSecond(): number | undefined {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.atMs <= first.atMs) return undefined;
    return Math.max(0, ((last.bytes - first.bytes) * 1000) / (last.atMs - first.atMs));
  }
}

export interface ProgressState {
  /** What is going on: `map 2/5 layers`. */
  readonly label: string;
  readonly doneBytes: number;
  /** 0 while unknown. */
  readonly totalBytes: number;
}

/** `120 MB of 392 MB  30%  31.0 MB/s  0:09 left` */
export function progressText(state: ProgressState, bytesPerSecond: number | undefined): string {
  const { doneBytes, totalBytes } = state;
  if (totalBytes <= 0) return doneBytes > 0 ? formatBytes(doneBytes) : "";
  const parts = [
    `${formatBytes(doneBytes)} of ${formatBytes(totalBytes)}`,
    formatPercent(doneBytes, totalBytes),
  ];
  if (bytesPerSecond !== undefined && bytesPerSecond > 0) {
    parts.push(`${formatBytes(bytesPerSecond)}/s`);
    if (doneBytes < totalBytes) {
      parts.push(`${formatDuration((totalBytes - doneBytes) / bytesPerSecond)} left`);
    }
  }
  return parts.join("  ");
}

/** The line with its bar, never wider than the terminal: a wrapped line cannot be redrawn. */
export function progressLine(
  state: ProgressState,
  bytesPerSecond: number | undefined,
  columns: number,
): string {
  const text = progressText(state, bytesPerSecond);
  const plain = [state.label, text].filter((part) => part !== "").join("  ");
  const cells = Math.min(BAR_CELLS_MAX, columns - 1 - plain.length - "  []".length);
  if (state.totalBytes <= 0 || cells < BAR_CELLS_MIN) return plain.slice(0, columns - 1);
  const full = Math.floor(Math.min(1, state.doneBytes / state.totalBytes) * cells);
  return `${state.label}  [${"#".repeat(full)}${".".repeat(cells - full)}]  ${text}`;
}

/** Draws on stderr; `update` as often as one likes, `finish` once. */
export class ProgressDisplay {
  readonly #stream: OutputStream;
  readonly #clock: Clock;
  readonly #isLive: boolean;
  #rate = new RateMeter();
  #lastDrawMs = Number.NEGATIVE_INFINITY;
  #lastLabel = "";
  #isLineOpen = false;

  constructor(stream: OutputStream, clock: Clock) {
    this.#stream = stream;
    this.#clock = clock;
    this.#isLive = stream.isTTY === true;
  }

  update(given: ProgressState): void {
    const state = { ...given, label: printable(given.label) };
    const nowMs = this.#clock.nowMs();
    if (state.label !== this.#lastLabel && state.doneBytes === 0) this.#rate = new RateMeter();
    this.#rate.add({ atMs: nowMs, bytes: state.doneBytes });
    const intervalMs = this.#isLive ? REDRAW_INTERVAL_MS : PLAIN_INTERVAL_MS;
    const isNews = state.label !== this.#lastLabel && this.#lastLabel === "";
    if (!isNews && nowMs - this.#lastDrawMs < intervalMs) return;
    this.#lastDrawMs = nowMs;
    this.#lastLabel = state.label;
    this.#draw(state);
  }

  /** Ends the display; the terminal's line is free again. */
  finish(): void {
    if (this.#isLineOpen) this.#stream.write("\r\u001b[K");
    this.#isLineOpen = false;
  }

  #draw(state: ProgressState): void {
    const rate = this.#rate.bytesPerSecond;
    if (this.#isLive) {
      const columns = this.#stream.columns ?? COLUMNS_DEFAULT;
      this.#stream.write(`\r${progressLine(state, rate, columns)}\u001b[K`);
      this.#isLineOpen = true;
    } else {
      const text = progressText(state, rate);
      this.#stream.write(`${state.label}${text === "" ? "" : `: ${text}`}\n`);
    }
  }
}
