/** A RegistryPool for tests: instant clock, fixed random, short timeouts, no logins. */
import type { Logger, LogFields } from "../../../src/base/log.ts";
import { DEFAULT_REGISTRY_OPTIONS, RegistryPool } from "../../../src/registry/index.ts";
import type { CredentialSource, RegistryOptions } from "../../../src/registry/index.ts";
import { InstantClock } from "./instant-clock.ts";

export interface LogLine {
  readonly event: string;
  readonly fields: LogFields;
}

/** Keeps every line. */
export function memoryLogger(lines: LogLine[]): Logger {
  const write = (event: string, fields: LogFields = {}): void => {
    lines.push({ event, fields });
  };
  const logger: Logger = {
    error: write,
    warn: write,
    info: write,
    debug: write,
    child: () => logger,
  };
  return logger;
}

export interface TestPool extends AsyncDisposable {
  readonly pool: RegistryPool;
  readonly clock: InstantClock;
  readonly lines: LogLine[];
}

export function testPool(
  options: Partial<RegistryOptions> & { readonly credentials?: CredentialSource } = {},
): TestPool {
  const clock = new InstantClock();
  const lines: LogLine[] = [];
  const { credentials, ...rest } = options;
  const pool = new RegistryPool(
    {
      ...DEFAULT_REGISTRY_OPTIONS,
      hostsDirs: [],
      dockerConfigDir: undefined,
      userAgent: "test/1",
      connectTimeoutMs: 2000,
      headersTimeoutMs: 2000,
      progressTimeoutMs: 2000,
      ...rest,
    },
    {
      clock,
      random: { next: () => 0.5, bytes: (count) => new Uint8Array(count) },
      log: memoryLogger(lines),
      ...(credentials === undefined ? {} : { credentials }),
    },
  );
  return {
    pool,
    clock,
    lines,
    [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose](),
  };
}

export async function collect(pieces: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all);
}

/** A signal that never fires. */
export function noAbort(): AbortSignal {
  return new AbortController().signal;
}
