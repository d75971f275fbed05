/** What the read path did, by source: plain numbers for status and metrics. */
import { COUNTED_SOURCES_MAX } from "./limits.ts";

export interface SourceCounts {
  /** Range requests. */
  requests: number;
  /** Blocks that arrived whole and verified. */
  blocks: number;
  /** Their blob bytes. */
  blobBytes: number;
  /** Requests that failed. */
  failures: number;
  /** Requests that the source passed on, and nobody's fault. */
  passes: number;
  /** Blocks with a wrong digest. */
  badBlocks: number;
}

/** Blocks that were had without a source. */
export interface LocalCounts {
  /** Reads of which at least one block was had so. */
  requests: number;
  blocks: number;
  bytes: number;
}

/** Where local reads found blocks, in tar bytes. */
export interface LocalReads {
  readonly memory: Readonly<LocalCounts>;
  readonly disk: Readonly<LocalCounts>;
}

/** What other nodes were given, in blob bytes, by where it came from. */
export interface ServedCounts {
  readonly memory: Readonly<LocalCounts>;
  readonly disk: Readonly<LocalCounts>;
  /** From a request to a source, while it went on. */
  readonly relay: Readonly<LocalCounts>;
}

export interface ReadCounts {
  readonly sources: Readonly<Record<string, Readonly<SourceCounts>>>;
  readonly local: LocalReads;
  readonly served: ServedCounts;
  /** Blocks asked for that were there: those of `local.disk`. */
  readonly presentBlocks: number;
  /** Blocks that found no room in the cache. */
  readonly passedBlocks: number;
}

/** A counter that is added to. */
export class LocalCounter implements LocalCounts {
  requests = 0;
  blocks = 0;
  bytes = 0;

  add(requests: number, blocks: number, bytes: number): void {
    this.requests += requests;
    this.blocks += blocks;
    this.bytes += bytes;
  }

  snapshot(): LocalCounts {
    return { requests: this.requests, blocks: this.blocks, bytes: this.bytes };
  }
}

/** One layer's counters, or the sum over all layers. */
export class ReadCounters {
  readonly #sources = new Map<string, SourceCounts>();
  readonly memory = new LocalCounter();
  readonly disk = new LocalCounter();
  readonly served = {
    memory: new LocalCounter(),
    disk: new LocalCounter(),
    relay: new LocalCounter(),
  };
  passedBlocks = 0;

  source(name: string): SourceCounts {
    const known = this.#sources.get(name);
    if (known !== undefined) return known;
    const counts = { requests: 0, blocks: 0, blobBytes: 0, failures: 0, passes: 0, badBlocks: 0 };
    if (this.#sources.size < COUNTED_SOURCES_MAX) this.#sources.set(name, counts);
    return counts;
  }

  add(other: ReadCounters): void {
    this.passedBlocks += other.passedBlocks;
    for (const [mine, theirs] of [
      [this.memory, other.memory],
      [this.disk, other.disk],
      [this.served.memory, other.served.memory],
      [this.served.disk, other.served.disk],
      [this.served.relay, other.served.relay],
    ] as const) {
      mine.add(theirs.requests, theirs.blocks, theirs.bytes);
    }
    for (const [name, counts] of other.#sources) {
      const sum = this.source(name);
      sum.requests += counts.requests;
      sum.blocks += counts.blocks;
      sum.blobBytes += counts.blobBytes;
      sum.failures += counts.failures;
      sum.passes += counts.passes;
      sum.badBlocks += counts.badBlocks;
    }
  }

  snapshot(): ReadCounts {
    const sources: Record<string, SourceCounts> = {};
    for (const [name, counts] of this.#sources) sources[name] = { ...counts };
    const { memory, disk, relay } = this.served;
    return {
      sources,
      local: { memory: this.memory.snapshot(), disk: this.disk.snapshot() },
      served: { memory: memory.snapshot(), disk: disk.snapshot(), relay: relay.snapshot() },
      presentBlocks: this.disk.blocks,
      passedBlocks: this.passedBlocks,
    };
  }
}
