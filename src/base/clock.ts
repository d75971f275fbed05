/** Time, injected everywhere so that tests and simulations own it. */
import { onAbort, throwIfAborted } from "./abort.ts";

export interface Clock {
  /** Milliseconds, monotonic, arbitrary origin. */
  nowMs(): number;
  /** Nanoseconds since the Unix epoch (wall clock). */
  wallNs(): bigint;
  /** Resolves after `delayMs`; rejects with the signal's reason when aborted. */
  sleep(delayMs: number, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Calls back once after `delayMs`, unless the returned function cancels. */
  timer(delayMs: number, callback: () => void): () => void;
}

const NS_PER_MS = 1_000_000n;
/** Source: Node timers: a longer delay overflows a 32-bit integer and fires at once. */
const TIMER_MS_MAX = 0x7fff_ffff;

/** What to add to process.hrtime to get wall time. `timeOrigin` is in ms with a fraction. */
let wallOffsetNs =
  BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n -
  process.hrtime.bigint();

/**
 * A millisecond clock alone would put an event before its cause (containerd's suite compares), a
 * fixed offset would never see the clock being set. So: nanoseconds from the monotonic clock, kept
 * inside the millisecond that the wall clock shows.
 */
function readWallNs(): bigint {
  const floorNs = BigInt(Date.now()) * NS_PER_MS;
  const readNs = process.hrtime.bigint() + wallOffsetNs;
  const ceilingNs = floorNs + NS_PER_MS - 1n;
  const wallNs = readNs < floorNs ? floorNs : readNs > ceilingNs ? ceilingNs : readNs;
  wallOffsetNs += wallNs - readNs;
  return wallNs;
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  wallNs: readWallNs,
  sleep: (delayMs, { signal }) =>
    new Promise<void>((resolve, reject) => {
      throwIfAborted(signal);
      const stopListening = onAbort(signal, (reason) => {
        clearTimeout(handle);
        reject(reason);
      });
      const handle = setTimeout(() => {
        stopListening();
        resolve();
      }, timerMs(delayMs));
    }),
  timer: (delayMs, callback) => {
    const handle = setTimeout(callback, timerMs(delayMs));
    handle.unref();
    return () => {
      clearTimeout(handle);
    };
  },
};

function timerMs(delayMs: number): number {
  return Math.min(Math.max(delayMs, 0), TIMER_MS_MAX);
}
