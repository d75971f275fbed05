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
  /** Blocks with a wrong digest. */
  badBlocks: number;
}

export interface ReadCounts {
  readonly sources: Readonly<Record<string, Readonly<SourceCounts>>>;
  /** Blocks asked for that were there. */
  readonly presentBlocks: number;
  /** Blocks that found no room in the cache. */
  readonly passedBlocks: number;
}

/** One layer's counters, or the sum over all layers. */
export class ReadCounters {
  readonly #sources = new Map<string, SourceCounts>();
  presentBlocks = 0;
  passedBlocks = 0;

  source(name: string): SourceCounts {
    const known = this.#sources.get(name);
    if (known !== undefined) return known;
    const counts = { requests: 0, blocks: 0, blobBytes: 0, failures: 0, badBlocks: 0 };
    if (this.#sources.size < COUNTED_SOURCES_MAX) this.#sources.set(name, counts);
    return counts;
  }

  add(other: ReadCounters): void {
    this.presentBlocks += other.presentBlocks;
    this.passedBlocks += other.passedBlocks;
    for (const [name, counts] of other.#sources) {
      const sum = this.source(name);
      sum.requests += counts.requests;
      sum.blocks += counts.blocks;
      sum.blobBytes += counts.blobBytes;
      sum.failures += counts.failures;
      sum.badBlocks += counts.badBlocks;
    }
  }

  snapshot(): ReadCounts {
    const sources: Record<string, SourceCounts> = {};
    for (const [name, counts] of this.#sources) sources[name] = { ...counts };
    return {
      sources,
      presentBlocks: this.presentBlocks,
      passedBlocks: this.passedBlocks,
    };
  }
}
