/**
 * Leave to read the registry for a member that is not its tree's root: otherwise a slow root makes
 * N nodes read it all at once. Tokens come from the tree's manager, which sees whether the root
 * lives, and are asked for when a reader's block has nowhere else to come from.
 */
import type { Clock } from "../../base/clock.ts";
import { DaemonError } from "../../base/errors.ts";
import type { SourceReadiness } from "../../block/index.ts";

/** Blob bytes that one token allows. */
const TOKEN_BYTES = 1024 * 1024;
/** A token that is not used by then is void: what it was for came from somewhere else. */
const TOKEN_MS = 1000;
/** How long an answer may take; without a manager the own budget has answered long before. */
const ANSWER_MS_MAX = 3000;
/** After a refusal: the manager has an opinion of the root by then. Source: peer/tree/config.ts. */
const REFUSED_MS = 120;
/**
 * Blob bytes that a child whose root is gone (not only silent) reads without asking anybody, until
 * there is another: one or two blocks.
 */
const LOST_BYTES = 512 * 1024;
/** …and not again for this long. */
const LOST_MS = 5000;

export type AskForToken = (
  image: string,
  bytes: number,
  options: { readonly signal: AbortSignal },
) => Promise<boolean>;

interface Allowance {
  bytes: number;
  /** When they are void, ms. */
  endsMs: number;
  lostMs: number;
  /** Not asked before, ms. */
  askAgainMs: number;
  isAsking: boolean;
}

export class RegistryTokens implements Disposable {
  readonly #ask: AskForToken;
  readonly #clock: Clock;
  #onGranted: () => void = () => undefined;
  readonly #allowances = new Map<string, Allowance>();
  readonly #closing = new AbortController();

  constructor(parts: { readonly ask: AskForToken; readonly clock: Clock }) {
    this.#ask = parts.ask;
    this.#clock = parts.clock;
  }

  /** Blocks that wait may go to the registry now. */
  onGranted(listener: () => void): void {
    this.#onGranted = listener;
  }

  /** Asks where there is nothing left. */
  readiness(image: string): SourceReadiness {
    const allowance = this.#of(image);
    const nowMs = this.#clock.nowMs();
    if (allowance.bytes > 0 && nowMs < allowance.endsMs) return "ready";
    if (!allowance.isAsking && nowMs >= allowance.askAgainMs) void this.#request(image, allowance);
    return allowance.isAsking ? { untilMs: nowMs + ANSWER_MS_MAX } : "skip";
  }

  /** The connection to the root broke, or it refuses any: readers wait for no manager's word. */
  rootLost(image: string): void {
    const allowance = this.#of(image);
    const nowMs = this.#clock.nowMs();
    if (nowMs - allowance.lostMs < LOST_MS) return;
    allowance.lostMs = nowMs;
    this.#grant(allowance, LOST_BYTES);
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
      allowance = { bytes: 0, endsMs: 0, lostMs: -Infinity, askAgainMs: 0, isAsking: false };
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
    if (isGranted) this.#grant(allowance, TOKEN_BYTES);
  }

  #grant(allowance: Allowance, bytes: number): void {
    const nowMs = this.#clock.nowMs();
    const left = nowMs < allowance.endsMs ? Math.max(0, allowance.bytes) : 0;
    allowance.bytes = left + bytes;
    allowance.endsMs = nowMs + TOKEN_MS;
    this.#onGranted();
  }
}
