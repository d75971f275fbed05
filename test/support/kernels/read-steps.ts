/**
 * Readers that fail or are killed at a step of a long read, and what the next reader then finds.
 * A keeper in a process of its own serves one layer; what it may read of the decoded file, and how
 * a fetch of the rest ends, is decided here. One step: everything cold; from a page on the source
 * fails, or stalls until the reader has been killed; then it is good again, and another process
 * reads the whole file: every byte has to be right.
 */
import { copyFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";
import { Rootfs } from "../../../src/rootfs/index.ts";
import type { FetchReply, KeeperClient, MountMode } from "../../../src/rootfs/index.ts";
import { KeeperFixture, never } from "../fuse/keeper-fixture.ts";
import { makeLayer } from "../fuse/layer-fixture.ts";
import type { LayerFixture } from "../fuse/layer-fixture.ts";
import { PageReader } from "./page-reader.ts";
import type { ReadKind } from "./page-reader.ts";

export const PAGE_BYTES = 4096;
const FILE_NAME = "big";
const STALL_MS_MAX = 20_000;
const EXAMPLES_MAX = 8;
/**
 * A reader may get the error that the fetch of the killed one before it ended with, where the
 * machine is slow to pass it on: it then does not wait for long enough to be killed.
 */
const ENDED_EARLY = "the reader ended before it could be killed";
const STEP_TRIES_MAX = 3;

/** How the source fails: at once, or not at all until the reader is dead. */
export type Fault = "fail" | "kill";
export const FAULTS: readonly Fault[] = ["fail", "kill"];

export interface Step {
  readonly kind: ReadKind;
  readonly fault: Fault;
  /** From this page of the file on nothing can be read. */
  readonly page: number;
}

export interface StepTotals {
  readonly mode: MountMode;
  runs: number;
  /** Runs whose reader saw an error; whose reader was killed while it was blocked. */
  failed: number;
  killed: number;
  /** Runs that showed a wrong byte, then or to the next reader, or an error to the next reader. */
  wrong: number;
  /** The first of them in words. */
  readonly examples: string[];
}

/** Answers the keeper's fetches from the decoded file, up to where it has been told to fail. */
class FaultySource {
  readonly #tarBytes: number;
  #goodEnd: number;
  #fault: Fault | undefined;
  #onStall: (() => void) | undefined;
  #stalled: { resolve: (reply: FetchReply) => void; reject: (error: Error) => void }[] = [];
  fetches = 0;

  constructor(tarBytes: number) {
    this.#tarBytes = tarBytes;
    this.#goodEnd = tarBytes;
  }

  /** Resolves when the first fetch stalls. */
  arm(fault: Fault, goodEnd: number): Promise<void> {
    this.#fault = fault;
    this.#goodEnd = goodEnd;
    return new Promise((resolve) => {
      this.#onStall = resolve;
    });
  }

  /** Good again; what stalls is answered, with an error if `late` is "fails". */
  heal(late: "answers" | "fails"): void {
    this.#fault = undefined;
    this.#goodEnd = this.#tarBytes;
    for (const { resolve, reject } of this.#stalled) {
      if (late === "answers") resolve(this.#good());
      else reject(new DaemonError("data-loss", "the block is bad"));
    }
    this.#stalled = [];
  }

  async fetch(range: ByteRange): Promise<FetchReply> {
    this.fetches += 1;
    // What is good of it first: the keeper asks again for the rest.
    if (this.#fault === undefined || range.start < this.#goodEnd) return this.#good();
    if (this.#fault === "fail") throw new DaemonError("data-loss", "the block is bad");
    this.#onStall?.();
    return new Promise((resolve, reject) => this.#stalled.push({ resolve, reject }));
  }

  #good(): FetchReply {
    return { present: [{ start: 0, end: this.#goodEnd }] };
  }
}

interface Mounted {
  readonly mode: MountMode;
  readonly layer: LayerFixture;
  readonly keeper: KeeperClient;
  readonly source: FaultySource;
  readonly reader: PageReader;
  /** What else caches the file's bytes. */
  readonly devicePath: string;
  readonly fileBytes: number;
  readonly fileOffset: number;
}

export interface ReadStepOptions {
  readonly mode: MountMode;
  readonly fileBytes: number;
  readonly steps: Iterable<Step>;
  readonly onProgress?: (totals: StepTotals) => void;
}

/** Every step on one mount in the mode. */
export async function runReadSteps(options: ReadStepOptions): Promise<StepTotals> {
  const fixture = await KeeperFixture.start({ logLevel: "error" });
  try {
    const mounted = await mountFile(fixture, options);
    const { mode } = options;
    const totals: StepTotals = { mode, runs: 0, failed: 0, killed: 0, wrong: 0, examples: [] };
    for (const step of options.steps) {
      const fault = await runStep(mounted, step, totals);
      totals.runs += 1;
      if (fault !== undefined) {
        totals.wrong += 1;
        const text = `${mode} ${step.kind} ${step.fault} at page ${step.page}: ${fault}`;
        if (totals.examples.length < EXAMPLES_MAX) totals.examples.push(text);
      }
      options.onProgress?.(totals);
    }
    return totals;
  } finally {
    await fixture[Symbol.asyncDispose]();
  }
}

async function mountFile(fixture: KeeperFixture, options: ReadStepOptions): Promise<Mounted> {
  const { mode, fileBytes } = options;
  const small = { bytes: 5 * PAGE_BYTES + 9 };
  const layer = await makeLayer(fixture.folder, "steps", [
    { name: "before", ...small },
    { name: FILE_NAME, bytes: fileBytes },
    { name: "after", ...small },
  ]);
  // All there from the start: what the keeper may read of it is what it is told is present.
  await copyFile(layer.tarPath, layer.decodedPath);
  const source = new FaultySource(layer.tarBytes);
  const keeper = fixture.client((_layer, range) => source.fetch(range));
  const { stateDir } = fixture;
  const rootfs = fixture.scope.use(
    await Rootfs.open({ stateDir, keeper, mode, clock: systemClock, log: silentLogger }),
  );
  const { chainId, metadataPath, layerId, tarBytes, decodedPath } = layer;
  const layers = [{ layerId, tarBytes, decodedPath, present: () => [] }];
  const { path } = await rootfs.mountChain({ chainId, metadataPath, layers }, { signal: never });
  const fileOffset = layer.files.get(FILE_NAME)?.offset ?? 0;
  const reader = fixture.scope.use(
    await PageReader.start({
      path: join(path, FILE_NAME),
      referencePath: layer.tarPath,
      referenceOffset: fileOffset,
    }),
  );
  const devicePath = mode === "fuse" ? "" : join(fixture.stateDir, "l", "0", "data");
  return { mode, layer, keeper, source, reader, devicePath, fileBytes, fileOffset };
}

/** What was wrong, or undefined. */
async function runStep(
  mounted: Mounted,
  step: Step,
  totals: StepTotals,
): Promise<string | undefined> {
  let fault: string | undefined;
  for (let tries = 0; tries < STEP_TRIES_MAX; tries += 1) {
    fault = await tryStep(mounted, step, totals);
    if (fault !== ENDED_EARLY) break;
  }
  return fault;
}

async function tryStep(
  mounted: Mounted,
  step: Step,
  totals: StepTotals,
): Promise<string | undefined> {
  const { layer, keeper, source, reader, fileBytes } = mounted;
  await keeper.drop(layer.layerId, [{ start: 0, end: layer.tarBytes }], { signal: never });
  const cold = await reader.command(`cold ${mounted.devicePath}`);
  if (cold !== "cold") return `the page cache was not empty: ${cold}`;
  const asked = source.fetches;
  const stalled = source.arm(step.fault, mounted.fileOffset + step.page * PAGE_BYTES);
  await reader.command(`start ${step.kind} 0 ${fileBytes}`);
  const early =
    step.fault === "fail"
      ? await failReader(mounted, totals)
      : await killReader(mounted, stalled, step.page % 2 === 0 ? "answers" : "fails", totals);
  if (early !== undefined) return early;
  if (source.fetches === asked) return "the source was not asked";
  await reader.command(`start ${step.page % 4 < 2 ? "read" : "map"} 0 ${fileBytes}`);
  const next = await reader.command("wait");
  const right = `right ${Math.ceil(fileBytes / PAGE_BYTES)} 0`;
  return next === right ? undefined : `the next reader: ${next}`;
}

async function failReader(
  { source, reader }: Mounted,
  totals: StepTotals,
): Promise<string | undefined> {
  const seen = await reader.command("wait");
  source.heal("answers");
  const [word, , errors] = seen.split(" ");
  if (word !== "right") return `the failed reader: ${seen}`;
  if (Number(errors) === 0) return "the failed reader saw no error";
  totals.failed += 1;
  return undefined;
}

async function killReader(
  { source, reader }: Mounted,
  stalled: Promise<void>,
  late: "answers" | "fails",
  totals: StepTotals,
): Promise<string | undefined> {
  const cancel = new AbortController();
  const limit = systemClock.sleep(STALL_MS_MAX, { signal: cancel.signal });
  await Promise.race([stalled, limit]);
  cancel.abort();
  await limit.catch(() => undefined);
  const seen = await reader.command("kill");
  source.heal(late);
  if (seen === "lingers" && (await reader.command("reap")) === "hung") return "it cannot be killed";
  if (seen === "ended") return ENDED_EARLY;
  if (seen !== "killed running") totals.killed += 1;
  return undefined;
}
