/** The property: our mount of an image equals the kernel's overlay over its unpacked layers. */
import fc from "fast-check";
import { compareTrees, Lab, type TreeEntry, type TreeManifest } from "../lab/index.ts";
import { buildImage, type BuiltImage } from "./built-image.ts";
import { imageArbitrary, type Image } from "./image.ts";
import { Oracle, type Expected } from "./oracle.ts";
import { Ours } from "./ours.ts";

/** A containerd and a keeper for many images. */
export class EqualitySession implements AsyncDisposable {
  readonly #oracle: Oracle;
  readonly #ours: Ours;
  /** Why containerd refused generated images: they are compared with nothing. */
  readonly refused: string[] = [];

  private constructor(oracle: Oracle, ours: Ours) {
    this.#oracle = oracle;
    this.#ours = ours;
  }

  static async start(): Promise<EqualitySession> {
    const lab = await Lab.create();
    try {
      const oracle = await Oracle.start(lab);
      const ours = await Ours.start();
      return new EqualitySession(oracle, ours);
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** For each image what differs, in words. */
  async differences(images: readonly Image[]): Promise<(readonly string[])[]> {
    const built: BuiltImage[] = [];
    for (const image of images) built.push(await buildImage(image));
    const found: (readonly string[])[] = [];
    for await (const expected of this.#oracle.expected(built)) {
      const image = built[found.length];
      if (image === undefined) break;
      if (typeof expected === "string") this.refused.push(expected);
      found.push(typeof expected === "string" ? [] : await this.#compare(image, expected));
    }
    return found;
  }

  async #compare(image: BuiltImage, expected: Expected): Promise<readonly string[]> {
    try {
      const lines: string[] = [];
      for (const [mode, tree] of await this.#ours.trees(image)) {
        const wanted = known(expected, tree, mode === "fuse");
        const options = { fuseNative: mode === "fuse" };
        lines.push(...compareTrees(wanted, tree, options).map((line) => `${mode}: ${line}`));
      }
      return lines;
    } catch (error) {
      return [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#ours[Symbol.asyncDispose]();
    } finally {
      await this.#oracle[Symbol.asyncDispose]();
    }
  }
}

/** The expected tree with the two deliberate differences of time (docs/equality.md). */
function known(expected: Expected, ours: TreeManifest, isFuse: boolean): TreeManifest {
  const tree = new Map<string, TreeEntry>();
  for (const [path, entry] of expected.tree) {
    const { mtime, group, target } = ours.get(path) ?? entry;
    const timed = isKnownTime(expected, entry, mtime) ? { ...entry, mtime } : entry;
    const shown = {
      group: isFuse && isOdd(entry.group, group) ? group : entry.group,
      target: isFuse && isOdd(entry.target, target) ? target : entry.target,
    };
    tree.set(path, { ...timed, ...shown });
  }
  return tree;
}

/** The first of several names changes where fuse mode shows one of them in another form. */
function isOdd(expected: string, ours: string): boolean {
  return expected !== "-" && (/\\x(?:e9|ff)/.test(expected) || ours.includes("\\xef\\xbf\\xbd"));
}

function isKnownTime(expected: Expected, entry: TreeEntry, ours: string): boolean {
  const seconds = Number(entry.mtime);
  const isUnpackTime = seconds >= expected.unpackedFrom && seconds <= expected.unpackedTo;
  if (entry.type === "d" && isUnpackTime) return true;
  return entry.mtime === "0.000000000" && ours.startsWith("-");
}

/** The images of a seed; the n-th is the one of fast-check's path "n" (shrinking apart). */
export function imagesOf(seed: number, count: number): Image[] {
  return fc.sample(imageArbitrary, { seed, numRuns: count });
}

export interface Counterexample {
  readonly seed: number;
  readonly path: string;
  readonly image: Image | undefined;
  readonly differences: readonly string[];
}

const SHRINK_MS_MAX = 60_000;

/** Looks for the smallest image below the one at `path` that still differs. */
export async function shrink(seed: number, path: string): Promise<Counterexample> {
  await using session = await EqualitySession.start();
  let differences: readonly string[] = [];
  const property = fc.asyncProperty(imageArbitrary, async (image) => {
    const [lines = []] = await session.differences([image]);
    if (lines.length === 0) return;
    differences = lines;
    throw new Error(lines.join("\n"));
  });
  const details = await fc.check(property, {
    seed,
    path,
    numRuns: 1,
    interruptAfterTimeLimit: SHRINK_MS_MAX,
  });
  const found = details.counterexample?.[0];
  return { seed, path: details.counterexamplePath ?? path, image: found, differences };
}

export function describeCounterexample(found: Counterexample): string {
  return [
    `seed ${found.seed}, path ${found.path}: an image that differs`,
    fc.stringify(found.image),
    ...found.differences,
    `again: scripts/equality --seed ${found.seed} --path ${found.path}`,
  ].join("\n");
}
