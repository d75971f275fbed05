/** Compares the images of a seed, with several sessions at once. */
import type { Lab } from "../lab/index.ts";
import { EqualitySession, imagesOf } from "./check.ts";

/** What one containerd and one keeper see before others take over. */
const SESSION_IMAGES = 250;
/** Unpacked together. */
const BATCH = 25;

export interface Differing {
  /** The image's number: fast-check's path. */
  readonly at: number;
  readonly lines: readonly string[];
}

export interface RunState {
  done: number;
  /** Metadata images that fsck.erofs found sound. */
  checked: number;
  readonly differing: Differing[];
  /** Why containerd did not take images: those are compared with nothing. */
  readonly refused: string[];
}

export interface RunOptions {
  readonly seed: number;
  readonly count: number;
  readonly jobs: number;
  /** After so many the run ends: they are mostly the same one. */
  readonly differencesMax: number;
  readonly onBatch?: (state: RunState) => void;
}

export async function compareImages(lab: Lab, options: RunOptions): Promise<RunState> {
  const { seed, count, jobs, differencesMax, onBatch } = options;
  const images = imagesOf(seed, count);
  const state: RunState = { done: 0, checked: 0, differing: [], refused: [] };
  let next = 0;
  const hasMore = (): boolean => next < count && state.differing.length < differencesMax;

  async function runSession(): Promise<void> {
    await using session = await EqualitySession.start(lab);
    let checked = 0;
    for (let seen = 0; seen < SESSION_IMAGES && hasMore(); seen += BATCH) {
      const first = next;
      const batch = images.slice(first, first + BATCH);
      next += batch.length;
      const found = await session.differences(batch);
      for (const [index, lines] of found.entries()) {
        if (lines.length > 0) state.differing.push({ at: first + index, lines });
      }
      state.done += found.length;
      state.checked += session.checked - checked;
      checked = session.checked;
      state.refused.push(...session.refused.splice(0));
      onBatch?.(state);
    }
  }

  async function runLane(): Promise<void> {
    while (hasMore()) await runSession();
  }

  await Promise.all(Array.from({ length: jobs }, runLane));
  return state;
}
