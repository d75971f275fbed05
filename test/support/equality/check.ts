/** The property: our mount of an image equals the kernel's overlay over its unpacked layers. */
import fc from "fast-check";
import { Scope } from "../../../src/base/scope.ts";
import { compareTrees, type Lab, type TreeEntry, type TreeManifest } from "../lab/index.ts";
import { buildImage, type BuiltImage } from "./built-image.ts";
import type { Image } from "./image.ts";
import { Oracle, type Expected } from "./oracle.ts";
import { Ours } from "./ours.ts";
import { imageArbitrary } from "./scenes.ts";

/** A containerd and a keeper for many images; they end with it, or with the lab. */
export class EqualitySession implements AsyncDisposable {
  readonly #scope: Scope;
  readonly #oracle: Oracle;
  readonly #ours: Ours;
  /** Why containerd refused generated images: they are compared with nothing. */
  readonly refused: string[] = [];

  private constructor(scope: Scope, oracle: Oracle, ours: Ours) {
    this.#scope = scope;
    this.#oracle = oracle;
    this.#ours = ours;
  }

  static async start(lab: Lab): Promise<EqualitySession> {
    const scope = lab.use(new Scope());
    const oracle = await Oracle.start(lab, scope);
    const ours = await Ours.start(scope, { scratch: oracle.folder, env: lab.env });
    return new EqualitySession(scope, oracle, ours);
  }

  /** Metadata images that fsck.erofs found sound: one a layer and the merged one. */
  get checked(): number {
    return this.#ours.checked;
  }

  /** For each image what differs, in words. The next tree is expected while one is compared. */
  async differences(images: readonly Image[]): Promise<(readonly string[])[]> {
    const built: BuiltImage[] = [];
    for (const image of images) {
      built.push(await buildImage(image, async (pieces) => this.#oracle.zstd(pieces)));
    }
    const found: (readonly string[])[] = [];
    const trees = this.#oracle.expected(built);
    let next = trees.next();
    for (const image of built) {
      const { value: expected } = await next;
      next = trees.next();
      next.catch(() => undefined); // it is awaited, or nobody's business after a failure
      if (expected === undefined) break;
      if (typeof expected === "string") this.refused.push(expected);
      found.push(typeof expected === "string" ? [] : await this.#compare(image, expected));
    }
    return found;
  }

  async #compare(image: BuiltImage, expected: Expected): Promise<readonly string[]> {
    try {
      const lines: string[] = [];
      for (const [mode, tree] of await this.#ours.trees(image)) {
        const wanted = known(expected, tree);
        const options = { fuseNative: mode === "fuse" };
        lines.push(...compareTrees(wanted, tree, options).map((line) => `${mode}: ${line}`));
      }
      return lines;
    } catch (error) {
      return [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope[Symbol.asyncDispose]();
  }
}

/** The expected tree with the two deliberate differences of time (docs/equality.md). */
function known(expected: Expected, ours: TreeManifest): TreeManifest {
  const tree = new Map<string, TreeEntry>();
  for (const [path, entry] of expected.tree) {
    const { mtime } = ours.get(path) ?? entry;
    tree.set(path, isKnownTime(expected, entry, mtime) ? { ...entry, mtime } : entry);
  }
  return tree;
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
export async function shrink(lab: Lab, seed: number, path: string): Promise<Counterexample> {
  await using session = await EqualitySession.start(lab);
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
