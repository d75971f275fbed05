/** The thread that runs a target; its watchdog is driver.ts. */
import { parentPort, workerData } from "node:worker_threads";
import { runLoop } from "./loop.ts";
import type { Finding } from "./loop.ts";
import type { FuzzTarget } from "./target.ts";

export interface ThreadOrder {
  /** URL of a module that exports TARGETS. */
  readonly module: string;
  readonly target: string;
  readonly seed: number;
  readonly first: number;
  readonly end: number;
  readonly seconds: number;
  /** Int32: see SHARED. */
  readonly shared: SharedArrayBuffer;
}

/** Places in the shared numbers: what is known of a thread that does not answer any more. */
export const SHARED = { run: 0, runs: 1, accepted: 2, count: 3 } as const;

export type ThreadMessage = Finding | "done";

async function main(): Promise<void> {
  const order = workerData as ThreadOrder;
  const { TARGETS } = (await import(order.module)) as { TARGETS: readonly FuzzTarget[] };
  const target = TARGETS.find(({ name }) => name === order.target);
  if (target === undefined) throw new Error(`no target ${order.target}`);
  const shared = new Int32Array(order.shared);
  const send = (message: ThreadMessage): void => parentPort?.postMessage(message);
  process.on("unhandledRejection", (reason) => {
    const text = reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
    send({ run: Atomics.load(shared, SHARED.run), kind: "rejection", text });
  });
  await runLoop(target, {
    seed: order.seed,
    first: order.first,
    end: order.end,
    untilMs: performance.now() + 1000 * order.seconds,
    onStart: (run) => Atomics.store(shared, SHARED.run, run),
    onOutcome: (_run, refusal) => {
      Atomics.add(shared, SHARED.runs, 1);
      if (refusal === undefined) Atomics.add(shared, SHARED.accepted, 1);
    },
    onFinding: (finding) => {
      if (finding.kind === "throw") Atomics.add(shared, SHARED.runs, 1);
      send(finding);
    },
  });
  send("done");
}

if (parentPort !== null) await main();
