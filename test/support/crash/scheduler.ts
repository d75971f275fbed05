/**
 * Decides what comes next: every step of every simulated process waits for a turn here, and turns
 * are given in an order drawn from a seed. Time passes only when nobody else wants a turn, or when
 * the dice say so.
 */
import { setImmediate as nextTurn } from "node:timers/promises";
import { onAbort, throwIfAborted } from "../../../src/base/abort.ts";
import type { Clock } from "../../../src/base/clock.ts";
import type { Prng } from "../../fuzz/prng.ts";

/** More turns than any run needs: beyond it two processes wait for each other busily. */
const TURNS_MAX = 400_000;

/** How far the clock may jump while somebody wants a turn. */
const BUSY_MS_MAX = 5000;

/** A process: what it waits for is forgotten when it is killed. */
export interface Owner {
  isDead: boolean;
}

interface Waiting {
  readonly owner: Owner;
  readonly resume: () => void;
}

interface Timer extends Waiting {
  readonly atMs: number;
}

export class Scheduler {
  readonly random: Prng;
  #nowMs = 1000;
  #turns: Waiting[] = [];
  #timers: Timer[] = [];
  #count = 0;

  constructor(random: Prng) {
    this.random = random;
  }

  /** Resolves when it is the caller's turn; never once its process is dead. */
  async turn(owner: Owner): Promise<void> {
    await new Promise<void>((resolve) => {
      if (!owner.isDead) this.#turns.push({ owner, resume: resolve });
    });
  }

  /** Everything runs, in some order, until the work is done. */
  async run<T>(work: Promise<T>): Promise<T> {
    const state = { isDone: false };
    const mark = (): void => {
      state.isDone = true;
    };
    work.then(mark, mark);
    for (;;) {
      await nextTurn();
      if (state.isDone) return work;
      this.#step();
    }
  }

  /** Runs until nobody wants a turn and the time is over. */
  async pass(durationMs: number): Promise<void> {
    const owner = { isDead: false };
    const clock = this.clock(owner);
    await this.run(clock.sleep(durationMs, { signal: new AbortController().signal }));
  }

  clock(owner: Owner): Clock {
    const timer = (delayMs: number, callback: () => void): (() => void) => {
      const entry = { owner, atMs: this.#nowMs + delayMs, resume: callback };
      this.#timers.push(entry);
      return () => {
        this.#timers = this.#timers.filter((other) => other !== entry);
      };
    };
    return {
      nowMs: () => this.#nowMs,
      wallNs: () => BigInt(Math.round(this.#nowMs * 1000)) * 1000n + 1_700_000_000_000_000_000n,
      timer,
      sleep: async (delayMs, { signal }) => {
        throwIfAborted(signal);
        await new Promise<void>((resolve, reject) => {
          const cancel = timer(delayMs, () => {
            stop();
            resolve();
          });
          const stop = onAbort(signal, (reason) => {
            cancel();
            reject(reason);
          });
        });
      },
    };
  }

  #step(): void {
    this.#count += 1;
    if (this.#count > TURNS_MAX) throw new Error("the simulation does not come to an end");
    this.#turns = this.#turns.filter(({ owner }) => !owner.isDead);
    this.#timers = this.#timers.filter(({ owner }) => !owner.isDead);
    if (this.#turns.length === 0 || this.random.oneIn(200)) this.#fireTimer();
    else this.#turns.splice(this.random.below(this.#turns.length), 1)[0]?.resume();
  }

  #fireTimer(): void {
    const next = this.#timers.toSorted((a, b) => a.atMs - b.atMs)[0];
    const isIdle = this.#turns.length === 0;
    if (next === undefined && isIdle) throw new Error("the simulation is stuck");
    // While there is work to do, seconds may pass, not minutes.
    if (next === undefined || (!isIdle && next.atMs > this.#nowMs + BUSY_MS_MAX)) return;
    this.#timers = this.#timers.filter((timer) => timer !== next);
    this.#nowMs = Math.max(this.#nowMs, next.atMs);
    next.resume();
  }
}
