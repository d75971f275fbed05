/** Answers and requests of the keeper, checked. */
import { DaemonError } from "../base/errors.ts";
import type { ByteRange } from "../base/range-set.ts";

export interface KeeperHello {
  readonly pid: number;
  /** Another one in each keeper process. */
  readonly instance: string;
  readonly version: string;
  /** Mountpoints by layer. */
  readonly layers: ReadonlyMap<string, string>;
  readonly trees: ReadonlyMap<string, string>;
}

export interface KeeperStats {
  readonly reads: number;
  readonly readsPresent: number;
  readonly readsMissed: number;
  readonly bytes: number;
  /** Reads that wait for the image service now. */
  readonly waiting: number;
  /** libfuse threads that ever were. */
  readonly threads: number;
}

function invalid(what: string): DaemonError {
  return new DaemonError("invalid-argument", `keeper message: bad ${what}`);
}

function object(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null) throw invalid("message");
  return value as Record<string, unknown>;
}

function text(value: unknown, what: string): string {
  if (typeof value !== "string") throw invalid(what);
  return value;
}

function count(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw invalid(what);
  return value;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalid(what);
  return value as readonly unknown[];
}

function mountpoints(value: unknown, key: string): Map<string, string> {
  const entries = list(value, key).map((item): [string, string] => {
    const served = object(item);
    return [text(served[key], key), text(served["mountpoint"], "mountpoint")];
  });
  return new Map(entries);
}

export function parseHello(value: unknown): KeeperHello {
  const message = object(value);
  return {
    pid: count(message["pid"], "pid"),
    instance: text(message["instance"], "instance"),
    version: text(message["version"], "version"),
    layers: mountpoints(message["layers"], "layer"),
    trees: mountpoints(message["trees"], "tree"),
  };
}

export function parseStats(value: unknown): KeeperStats {
  const message = object(value);
  return {
    reads: count(message["reads"], "reads"),
    readsPresent: count(message["readsPresent"], "reads_present"),
    readsMissed: count(message["readsMissed"], "reads_missed"),
    bytes: count(message["bytes"], "bytes"),
    waiting: count(message["waiting"], "waiting"),
    threads: count(message["threads"], "threads"),
  };
}

export function parseRemaining(value: unknown): number {
  return count(object(value)["remaining"], "remaining");
}

export function parseFetch(value: unknown): {
  readonly layerId: string;
  readonly range: ByteRange;
} {
  const message = object(value);
  const start = count(message["start"], "start");
  const end = count(message["end"], "end");
  if (end <= start) throw invalid("range");
  return { layerId: text(message["layer"], "layer"), range: { start, end } };
}

export function parseTouched(value: unknown): {
  readonly layerId: string;
  readonly ranges: readonly ByteRange[];
} {
  const message = object(value);
  const ranges = list(message["ranges"], "ranges").map((item) => {
    const range = object(item);
    return { start: count(range["start"], "start"), end: count(range["end"], "end") };
  });
  return { layerId: text(message["layer"], "layer"), ranges };
}
