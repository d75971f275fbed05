/** A resolver over fakes. */
import { silentLogger } from "../../../src/base/log.ts";
import type { LogFields, Logger } from "../../../src/base/log.ts";
import type { Random } from "../../../src/base/random.ts";
import { BlockResolver } from "../../../src/block/index.ts";
import type { BlockResolverOptions, BlockSource } from "../../../src/block/index.ts";
import { FakeClock } from "./fake-clock.ts";
import { FakeStored } from "./fake-stored.ts";
import { fakeDecodeBlock, fakeDecodeFrame } from "./sample-layer.ts";
import type { SampleLayer } from "./sample-layer.ts";

export const halfRandom: Random = { next: () => 0.5, bytes: (count) => new Uint8Array(count) };

/** Remembers events. */
export function listLogger(events: string[]): Logger {
  const note = (event: string, _fields?: LogFields): void => {
    events.push(event);
  };
  const logger: Logger = {
    ...silentLogger,
    error: note,
    warn: note,
    info: note,
    child: () => logger,
  };
  return logger;
}

export interface Bench extends AsyncDisposable {
  readonly clock: FakeClock;
  readonly resolver: BlockResolver;
  readonly events: string[];
  /** Adds the layer with a store of its own. */
  add(
    sample: SampleLayer,
    sources: readonly BlockSource[] | (() => readonly BlockSource[]),
  ): FakeStored;
}

export function openBench(options: Partial<BlockResolverOptions> = {}): Bench {
  const clock = new FakeClock();
  const events: string[] = [];
  const resolver = new BlockResolver(
    {
      clock,
      random: halfRandom,
      logger: listLogger(events),
      decodeBlock: fakeDecodeBlock,
      decodeFrame: fakeDecodeFrame,
    },
    options,
  );
  return {
    clock,
    resolver,
    events,
    add: (sample, sources) => {
      const stored = new FakeStored(sample.table);
      resolver.addLayer(sample.layer(sources), stored);
      return stored;
    },
    [Symbol.asyncDispose]: () => resolver[Symbol.asyncDispose](),
  };
}

/** A promise's outcome without waiting for it. */
export function watch<T>(promise: Promise<T>): {
  state: "waiting" | "done" | "failed";
  error?: unknown;
} {
  const watched: { state: "waiting" | "done" | "failed"; error?: unknown } = { state: "waiting" };
  promise.then(
    () => {
      watched.state = "done";
    },
    (error: unknown) => {
      watched.state = "failed";
      watched.error = error;
    },
  );
  return watched;
}
