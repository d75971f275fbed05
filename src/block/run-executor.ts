/** Carries out one range request: stream, cut, verify, decode, store. */
import { DaemonError, withContext } from "../base/errors.ts";
import { ArrivingBlob } from "./arriving-blob.ts";
import { FETCH_PRIORITY } from "./block-source.ts";
import type { Block } from "./block-table.ts";
import { describeBlock } from "./finish-block.ts";
import type { BlockFinisher } from "./finish-block.ts";
import type { Flight } from "./flight.ts";
import { RUN_FINISHING_MAX } from "./limits.ts";
import type { ReadCounters } from "./read-counters.ts";
import type { Run } from "./run.ts";
import { watchedStream } from "./silence-watch.ts";
import type { SilenceWatch } from "./silence-watch.ts";
import { splitBlocks } from "./split-blocks.ts";
import type { BlockPlace, BlockSink } from "./split-blocks.ts";

/**
 * Tar bytes of one zstd frame while its blob bytes arrive, exactly `tarBytes` of them or
 * `data-loss`. Pieces may be views that are reused: the caller copies.
 */
export type DecodeFrame = (
  blob: AsyncIterable<Uint8Array>,
  options: { readonly tarBytes: number; readonly signal: AbortSignal },
) => AsyncIterable<Uint8Array>;

/** What the executor reports; the scheduler decides what follows. */
export interface RunReports {
  /** The first complete block: the source is well. */
  onProgress(run: Run): void;
  onOutcome(run: Run, flight: Flight): void;
  /** The block's bytes are wrong: the flight tries again elsewhere or fails. */
  onBadBlock(run: Run, flight: Flight | undefined, block: Block, error: DaemonError): void;
  /** Nothing can make this block right. */
  onLost(run: Run, flight: Flight, error: DaemonError): void;
  /** What nobody waits for any more may end the run. */
  onSettled(run: Run): void;
  /** Background work that must end before the owner is disposed. */
  readonly track: (work: Promise<void>) => void;
}

export interface RunContext {
  readonly finisher: BlockFinisher;
  readonly decodeFrame: DecodeFrame;
  readonly reports: RunReports;
  readonly counters: (run: Run) => ReadCounters;
}

/** Ends when the stream has been read; blocks may still be finishing (they are tracked). */
export async function executeRun(
  context: RunContext,
  run: Run,
  watch: SilenceWatch,
): Promise<void> {
  const { signal } = run.controller;
  const counts = context.counters(run).source(run.source.name);
  counts.requests += 1;
  const stream = await watch.wait(
    run.source.fetch(run.request, {
      signal,
      priority: run.priority,
      isUrgent: () => run.priority === FETCH_PRIORITY.reader,
      onAlive: () => {
        watch.alive();
      },
    }),
    signal,
  );
  const watched = watchedStream(stream, watch, signal);
  if (run.plan.isFrame) await executePass(context, run, watched);
  else await executeBlocks(context, run, watched);
}

async function executeBlocks(
  context: RunContext,
  run: Run,
  stream: AsyncIterable<Uint8Array>,
): Promise<void> {
  const finishing = new Set<Promise<void>>();
  const { places } = run.plan;
  // Others may be reading a block while it arrives; one that nobody hopes for arrives for nobody.
  const sinkOf = (place: BlockPlace): BlockSink => {
    const length = place.end - place.start;
    return run.hopeful.get(place.index)?.arriving(length) ?? new ArrivingBlob(length);
  };
  for await (const piece of splitBlocks(stream, run.request.range.start, places, sinkOf)) {
    const flight = run.hopeful.get(piece.index);
    run.hopeful.delete(piece.index);
    if (flight === undefined || flight.state === "settled") continue;
    flight.state = "finishing";
    const work = finish(context, run, { flight, blobBytes: piece.bytes }).finally(() => {
      finishing.delete(work);
    });
    finishing.add(work);
    context.reports.track(work);
    if (finishing.size >= RUN_FINISHING_MAX) await Promise.race(finishing);
  }
}

/** Never rejects. */
async function finish(
  context: RunContext,
  run: Run,
  { flight, blobBytes }: { readonly flight: Flight; readonly blobBytes: Uint8Array },
): Promise<void> {
  const { queue, source } = run;
  const { finisher, reports } = context;
  const block = queue.layer.table.at(flight.index);
  const counts = context.counters(run).source(source.name);
  try {
    if (!(await finisher.isIntact(block, blobBytes))) {
      counts.badBlocks += 1;
      const message = `${describeBlock(queue.layer, block)}: wrong sha256 from ${source.name}`;
      reports.onBadBlock(run, flight, block, new DaemonError("data-loss", message));
      return;
    }
    counts.blocks += 1;
    counts.blobBytes += blobBytes.length;
    reports.onProgress(run);
    finisher.deliver(queue, flight, blobBytes);
    if (!flight.isKept) {
      flight.passedOn();
      reports.onOutcome(run, flight);
      return;
    }
    const { priority } = flight;
    const { track } = reports;
    const outcome = await finisher.finish(queue, block, blobBytes, { priority, track });
    if (!outcome.isStored) context.counters(run).passedBlocks += 1;
    flight.succeed(outcome);
    reports.onOutcome(run, flight);
  } catch (error) {
    const message = `${describeBlock(queue.layer, block)} cannot be used`;
    reports.onLost(run, flight, withContext(error, message));
  }
}

/** One pass over a zstd frame: every block in it is verified and stored as it is decoded. */
async function executePass(
  context: RunContext,
  run: Run,
  stream: AsyncIterable<Uint8Array>,
): Promise<void> {
  const { queue, plan } = run;
  const first = plan.places[0];
  const last = plan.places.at(-1);
  if (first === undefined || last === undefined) return;
  const decoded = context.decodeFrame(stream, {
    tarBytes: last.end - first.start,
    signal: run.controller.signal,
  });
  const pass = queue.passes.get(plan.first);
  for await (const { index, bytes } of splitBlocks(decoded, first.start, plan.places)) {
    if (pass !== undefined) pass.next = index + 1;
    const flight = run.hopeful.get(index);
    run.hopeful.delete(index);
    await finishDecoded(context, run, { flight, index, tarBytes: bytes });
    if (run.controller.signal.aborted) return;
  }
  context.counters(run).source(run.source.name).blobBytes +=
    run.request.range.end - run.request.range.start;
}

async function finishDecoded(
  context: RunContext,
  run: Run,
  step: {
    readonly flight: Flight | undefined;
    readonly index: number;
    readonly tarBytes: Uint8Array;
  },
): Promise<void> {
  const { queue, source } = run;
  const { finisher, reports } = context;
  const { flight, index, tarBytes } = step;
  if (flight === undefined && queue.stored.has(index)) return;
  const block = queue.layer.table.at(index);
  const counts = context.counters(run).source(source.name);
  if (flight !== undefined && flight.state !== "settled") flight.state = "finishing";
  if (!(await finisher.isDecodedIntact(block, tarBytes))) {
    counts.badBlocks += 1;
    const message = `${describeBlock(queue.layer, block)}: wrong tar bytes from ${source.name}`;
    const error = new DaemonError("data-loss", message);
    reports.onBadBlock(run, flight, block, error);
    throw error; // what follows in the frame is not to be trusted either
  }
  counts.blocks += 1;
  reports.onProgress(run);
  const priority = flight?.priority ?? FETCH_PRIORITY.fill;
  const outcome = await finisher.keep(queue, block, tarBytes, { priority });
  // Without room there is no point in decoding on for nobody.
  run.goesOnAlone = outcome.isStored;
  if (!outcome.isStored) context.counters(run).passedBlocks += 1;
  if (flight !== undefined && flight.state !== "settled") {
    flight.succeed(outcome);
    reports.onOutcome(run, flight);
  }
  reports.onSettled(run);
}
