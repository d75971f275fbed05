/**
 * One member's suspicion: how long it has left to refute. Each independent confirmation shortens
 * that, and is worth passing on. Source: Lifeguard 4.2.
 */
import { suspicionLastsMs } from "./formulas.ts";

export interface SuspicionOptions {
  readonly startedMs: number;
  /** Who suspected first: not a confirmation of itself. */
  readonly from: string;
  /** Confirmations that bring the time down to `minMs`; 0: it is `minMs` at once. */
  readonly needed: number;
  readonly minMs: number;
  readonly maxMs: number;
}

export class Suspicion {
  readonly #options: SuspicionOptions;
  readonly #heard: Set<string>;

  constructor(options: SuspicionOptions) {
    this.#options = options;
    this.#heard = new Set([options.from]);
  }

  get confirmations(): number {
    return this.#heard.size - 1;
  }

  /** When the member is called dead, on the clock of `startedMs`. */
  get endsMs(): number {
    const { startedMs, needed } = this.#options;
    return startedMs + suspicionLastsMs(this.confirmations, needed, this.#options);
  }

  /** True for news: another one suspects too, and its word still counts. */
  confirm(from: string): boolean {
    if (this.confirmations >= this.#options.needed || this.#heard.has(from)) return false;
    this.#heard.add(from);
    return true;
  }
}
