/** Runs one target many times in this thread and judges every run. */
import { setImmediate } from "node:timers/promises";
import { getHeapStatistics } from "node:v8";
import { DaemonError } from "../../src/base/errors.ts";
import { mutate } from "./mutator.ts";
import { Prng } from "./prng.ts";
import type { FuzzTarget } from "./target.ts";

/** One run may take this long, in milliseconds; a second try decides, for machines are busy. */
export const RUN_MS_MAX = 1000;
/** One run may add this much, in bytes, to heap and buffers, or ask for it at once. */
export const RUN_GROWTH_BYTES_MAX = 256 * 1024 * 1024;

const RUNS_PER_TURN = 64;

export type FindingKind = "crash" | "growth" | "hang" | "rejection" | "slow" | "throw";

export interface Finding {
  readonly run: number;
  readonly kind: FindingKind;
  readonly text: string;
}

export interface LoopOptions {
  readonly seed: number;
  /** Runs from `first` to `end` - 1. */
  readonly first: number;
  readonly end: number;
  /** No further run is begun after this; performance.now(). */
  readonly untilMs?: number;
  readonly onStart?: (run: number) => void;
  readonly onOutcome?: (run: number, refusal: DaemonError | undefined) => void;
  readonly onFinding: (finding: Finding) => void;
}

/** Makes the inputs of a target's runs: each depends on seed and run number only. */
export class Inputs {
  readonly #target: FuzzTarget;
  readonly #seeds: readonly Uint8Array[];

  constructor(target: FuzzTarget) {
    this.#target = target;
    this.#seeds = target.seeds();
  }

  of(seed: number, run: number): Buffer {
    return mutate(this.#target, this.#seeds, new Prng(seed, run));
  }
}

/** Sees the largest single request to Buffer's allocators, which a collection may hide. */
class AllocationWatch implements Disposable {
  largest = 0;
  readonly #names = ["alloc", "allocUnsafe", "allocUnsafeSlow"] as const;
  readonly #originals = new Map<string, unknown>();

  constructor() {
    for (const name of this.#names) {
      const original = Buffer[name].bind(Buffer);
      this.#originals.set(name, Reflect.get(Buffer, name));
      const watched = (size: number, ...rest: never[]): Buffer => {
        if (size > this.largest) this.largest = size;
        return original(size, ...rest);
      };
      Reflect.set(Buffer, name, watched);
    }
  }

  [Symbol.dispose](): void {
    for (const [name, original] of this.#originals) Reflect.set(Buffer, name, original);
  }
}

function memoryBytes(): number {
  const { used_heap_size: heap, external_memory: external } = getHeapStatistics();
  return heap + external;
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}

/** The error that refused the input, undefined where it was accepted; throws what is foreign. */
async function refusalOf(target: FuzzTarget, bytes: Buffer): Promise<DaemonError | undefined> {
  try {
    const pending = target.run(bytes);
    if (pending !== undefined) await pending;
    return undefined;
  } catch (error) {
    if (error instanceof DaemonError) return error;
    throw error;
  }
}

export async function runLoop(target: FuzzTarget, options: LoopOptions): Promise<void> {
  const inputs = new Inputs(target);
  using watch = new AllocationWatch();
  const untilMs = options.untilMs ?? Infinity;
  for (let run = options.first; run < options.end; run += 1) {
    // Rejections that nobody waits for come to light between turns of the event loop.
    if (run % RUNS_PER_TURN === 0) await setImmediate();
    options.onStart?.(run);
    const bytes = inputs.of(options.seed, run);
    const memoryBefore = memoryBytes();
    const start = performance.now();
    if (start > untilMs) return;
    watch.largest = 0;
    try {
      const refusal = await refusalOf(target, bytes);
      options.onOutcome?.(run, refusal);
    } catch (error) {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
      options.onFinding({ run, kind: "throw", text });
      continue;
    }
    const growth = Math.max(memoryBytes() - memoryBefore, watch.largest);
    if (growth > RUN_GROWTH_BYTES_MAX) {
      const text = `${bytes.length} bytes of input took ${mebibytes(growth)}`;
      options.onFinding({ run, kind: "growth", text });
    }
    if (performance.now() - start > RUN_MS_MAX) {
      const again = performance.now();
      await refusalOf(target, Buffer.from(bytes));
      const tookMs = Math.min(performance.now() - again, again - start);
      if (tookMs > RUN_MS_MAX) {
        options.onFinding({ run, kind: "slow", text: `took ${Math.round(tookMs)} ms` });
      }
    }
  }
  await setImmediate();
}
