/** AbortSignal helpers: every wait takes a signal, and its reason is a DaemonError. */
import { setMaxListeners } from "node:events";
import { DaemonError, errorCode } from "./errors.ts";

/** The signal's reason as a DaemonError (`canceled` or `deadline-exceeded`). */
export function abortReason(signal: AbortSignal): DaemonError {
  const reason: unknown = signal.reason;
  if (reason instanceof DaemonError) return reason;
  const code = errorCode(reason) === "deadline-exceeded" ? "deadline-exceeded" : "canceled";
  return new DaemonError(code, code === "canceled" ? "canceled" : "deadline exceeded", {
    cause: reason,
  });
}

export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw abortReason(signal);
}

/** Waits for `promise` or the signal, whichever is first; the work itself goes on. */
export async function raceAbort<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    // Its failure is nobody's any more; unhandled, it would end the process.
    promise.catch(() => undefined);
    throw abortReason(signal);
  }
  let stopListening: (() => void) | undefined;
  const aborted = new Promise<never>((_resolve, reject) => {
    stopListening = onAbort(signal, reject);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    stopListening?.();
  }
}

/**
 * Calls back once with the reason when the signal aborts; the returned function stops listening.
 * The signal must not be aborted yet. Any number may wait for one signal (a process's own, say):
 * Node's warning about more than ten is switched off for it.
 */
export function onAbort(signal: AbortSignal, callback: (reason: DaemonError) => void): () => void {
  const listener = (): void => {
    callback(abortReason(signal));
  };
  setMaxListeners(0, signal);
  signal.addEventListener("abort", listener, { once: true });
  return () => {
    signal.removeEventListener("abort", listener);
  };
}

/** Resolves when the signal aborts; at once when it has. */
export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    signal.addEventListener(
      "abort",
      () => {
        resolve();
      },
      { once: true },
    );
  });
}
