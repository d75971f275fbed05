/** What the failure of a request means for its source and for the blocks that hoped for it. */
import { abortReason } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import { withContext } from "../base/errors.ts";
import type { DaemonError } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { Random } from "../base/random.ts";
import { isPass } from "./block-source.ts";
import { SOURCE_PASS_MS } from "./limits.ts";
import type { ReadCounters } from "./read-counters.ts";
import { backoffMs, classifyFailure } from "./retry.ts";
import type { BackoffOptions } from "./retry.ts";
import type { Run } from "./run.ts";

export interface FailureParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly logger: Logger;
  readonly counters: (layerId: string) => ReadCounters;
  readonly backoff: BackoffOptions;
}

/** Notes it; the flights are then queued again by the caller. */
export function noteFailure(run: Run, failure: unknown, parts: FailureParts): void {
  const { queue, source, controller } = run;
  const { signal } = controller;
  if (signal.aborted && abortReason(signal).code === "canceled") return;
  const { clock, random, logger } = parts;
  const { start, end } = run.plan.range;
  const what = `blob ${queue.layer.blobDigest} bytes ${start}-${end} from ${source.name}`;
  const cause = signal.aborted ? abortReason(signal) : failure;
  const error = withContext(cause, what);
  const flights = [...run.hopeful.values()];
  for (const flight of flights) flight.lastError = error;
  if (isPass(cause)) {
    const untilMs = clock.nowMs() + SOURCE_PASS_MS;
    for (const flight of flights) flight.passedUntilMs.set(source.name, untilMs);
    notePass(run, error, parts);
    return;
  }
  const state = queue.sourceState(source.name);
  const kind = classifyFailure(cause);
  parts.counters(queue.layer.id).source(source.name).failures += 1;
  if (kind === "refused") {
    queue.refused(source, error, clock.nowMs());
    for (const flight of flights) flight.excluded.set(source.name, error);
  } else if (kind === "corrupt") {
    for (const flight of flights) queue.corrupt(flight, source, error);
  } else if (state.retryAtMs <= clock.nowMs()) {
    // Requests that fail together count once.
    state.failures += 1;
    const delayMs = backoffMs(state.failures, random.next(), parts.backoff);
    state.retryAtMs = clock.nowMs() + delayMs;
  }
  const fields = { layer: queue.layer.id, source: source.name, failures: state.failures };
  logger.warn("source-failed", { ...fields, err: error });
}

function notePass(run: Run, error: DaemonError, parts: FailureParts): void {
  const { queue, source } = run;
  parts.counters(queue.layer.id).source(source.name).passes += 1;
  parts.logger.debug("source-passed", { layer: queue.layer.id, source: source.name, err: error });
}
