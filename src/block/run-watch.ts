/** What the silence of one request means for its slot and for the choice of sources. */
import type { Clock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import type { Run } from "./run.ts";
import { SilenceWatch } from "./silence-watch.ts";

export interface RunWatchOptions {
  readonly parkMs: number;
  readonly silenceMs: number;
  readonly silenceWithOthersMs: number;
}

/** Ends the run when the source gives no sign of life; `onSlotFree` when its slot is lent. */
export function watchRun(
  clock: Clock,
  run: Run,
  options: RunWatchOptions,
  onSlotFree: () => void,
): SilenceWatch {
  const state = run.queue.sourceState(run.source.name);
  const hasOthers = run.queue.layer.sources().length > 1;
  const giveUpMs = hasOthers ? options.silenceWithOthersMs : options.silenceMs;
  return new SilenceWatch(
    clock,
    { parkMs: Math.min(options.parkMs, giveUpMs), giveUpMs },
    {
      onFlow: (flow, before) => {
        if (before !== "flowing") state[before] -= 1;
        if (flow === "flowing") {
          run.slot.unpark();
          return;
        }
        state[flow] += 1;
        if (before !== "flowing") return;
        run.slot.park();
        onSlotFree();
      },
      onGiveUp: () => {
        const message = `${run.source.name} sent nothing for ${giveUpMs} ms`;
        run.controller.abort(new DaemonError("unavailable", message));
      },
    },
  );
}
