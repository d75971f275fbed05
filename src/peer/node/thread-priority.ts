/**
 * The node's thread goes before the threads that move blocks: it has little to do, and members that
 * wait for a processor look dead to each other.
 */
/* eslint-disable no-restricted-imports -- only a synchronous call runs on the thread itself */
import { readlinkSync } from "node:fs";
/* eslint-enable no-restricted-imports -- the end of the exception */
import { setPriority } from "node:os";

/** As `nice` counts: about ten times the share of a thread at 0. */
const NICE = -10;

/** Of the calling thread. Best effort: without the right to it (CAP_SYS_NICE) nothing changes. */
export function preferThisThread(): void {
  try {
    // Linux takes a thread's id where it takes a process's (setpriority(2), "C library/kernel
    // differences").
    const id = Number(readlinkSync("/proc/thread-self").split("/").at(-1));
    if (Number.isInteger(id)) setPriority(id, NICE);
  } catch {
    // Slower answers on a busy machine, no more.
  }
}
