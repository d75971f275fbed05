/** For programs (demo, benchmarks): a laboratory that ends with the work, also on ctrl-C. */
import { Lab } from "./lab.ts";

const SIGNALS: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
/** 128 + the signal's number, as shells count. */
const EXIT_STATUS: Readonly<Partial<Record<NodeJS.Signals, number>>> = {
  SIGHUP: 129,
  SIGINT: 130,
  SIGTERM: 143,
};

/** Ends the process on a signal, after everything was cleared away. */
export async function withLab(work: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = await Lab.create();
  const ending = new AbortController();
  const onSignal = (signal: NodeJS.Signals): void => {
    if (ending.signal.aborted) return;
    ending.abort();
    process.stderr.write(`\n${signal}: clearing away\n`);
    const end = (): void => {
      process.exit(EXIT_STATUS[signal] ?? 1);
    };
    lab[Symbol.asyncDispose]().then(end, (error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      end();
    });
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    await work(lab);
  } catch (error) {
    // What fails because it is being cleared away is no news.
    if (!ending.signal.aborted) throw error;
    await new Promise(() => undefined);
  } finally {
    if (!ending.signal.aborted) await lab[Symbol.asyncDispose]();
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}
