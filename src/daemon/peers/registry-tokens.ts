/**
 * Leave to read the registry for a member that is not its tree's root: otherwise a slow root makes
 * N nodes read it all at once. Tokens come from the tree's manager, and are asked for when a block
 * has nowhere else to come from.
 */
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import type { SourceReadiness } from "../../block/index.ts";

/** Blob bytes that one token allows. */
const TOKEN_BYTES = 1024 * 1024;
/** How long a manager may take to answer. */
const ANSWER_MS_MAX = 1000;
/** After a refusal. */
const REFUSED_MS = 500;

export type AskForToken = (
  image: string,
  bytes: number,
  options: { readonly signal: AbortSignal },
) => Promise<boolean>;

interface Allowance {
  bytes: number;
  /** Not asked before, ms. */
  askAgainMs: number;
  isAsking: boolean;
}

export class RegistryTokens implements Disposable {
  readonly #ask: AskForToken;
  readonly #clock: Clock;
  readonly #onGranted: () => void;
  readonly #allowances = new Map<string, Allowance>();
  readonly #closing = new AbortController();

  constructor(parts: {
    readonly ask: AskForToken;
    readonly clock: Clock;
    /** Blocks that wait may go to the registry now. */
    readonly onGranted: () => void;
  }) {
    this.#ask = parts.ask;
    this.#clock = parts.clock;
    this.#onGranted = parts.onGranted;
  }

  /** Asks where there is nothing left. */
  readiness(image: string): SourceReadiness {
    const allowance = this.#of(image);
    if (allowance.bytes > 0) return "ready";
    const nowMs = this.#clock.nowMs();
    if (!allowance.isAsking && nowMs >= allowance.askAgainMs) void this.#request(image, allowance);
    return allowance.isAsking ? { untilMs: nowMs + ANSWER_MS_MAX } : "skip";
  }

  /** The last token may be overdrawn: a request is not cut for it. */
  spend(image: string, bytes: number): void {
    this.#of(image).bytes -= bytes;
  }

  [Symbol.dispose](): void {
    this.#closing.abort();
  }

  #of(image: string): Allowance {
    let allowance = this.#allowances.get(image);
    if (allowance === undefined) {
      allowance = { bytes: 0, askAgainMs: 0, isAsking: false };
      this.#allowances.set(image, allowance);
    }
    return allowance;
  }

  async #request(image: string, allowance: Allowance): Promise<void> {
    allowance.isAsking = true;
    const limit = new AbortController();
    const cancel = this.#clock.timer(ANSWER_MS_MAX, () => {
      limit.abort(new DaemonError("deadline-exceeded", "the tree's manager does not answer"));
    });
    const signal = AbortSignal.any([limit.signal, this.#closing.signal]);
    let isGranted: boolean;
    try {
      isGranted = await this.#ask(image, TOKEN_BYTES, { signal });
    } catch {
      // No manager answers: what is left of the cluster must still be able to read.
      isGranted = !this.#closing.signal.aborted;
    } finally {
      cancel();
    }
    allowance.isAsking = false;
    allowance.askAgainMs = this.#clock.nowMs() + REFUSED_MS;
    if (!isGranted) return;
    allowance.bytes = Math.max(0, allowance.bytes) + TOKEN_BYTES;
    this.#onGranted();
  }
}
