/** A source whose answers the test decides: at once, late, never, wrong, or not at all. */
import { raceAbort } from "../../../src/base/abort.ts";
import type {
  Block,
  BlobRun,
  BlockSource,
  FetchPriority,
  SourceFetchOptions,
} from "../../../src/block/index.ts";

export interface FakeRequest {
  readonly run: BlobRun;
  readonly priority: FetchPriority;
  readonly signal: AbortSignal;
  isOver: boolean;
}

export class FakeSource implements BlockSource {
  readonly name: string;
  readonly origin: string;
  readonly requests: FakeRequest[] = [];
  readonly badBlocks: number[] = [];
  /** Bytes in one piece of the stream. */
  pieceBytes = 64 * 1024;
  /** Called for each request: throw to fail, return a promise to wait. */
  onRequest: (request: FakeRequest) => Promise<void> | void = () => undefined;
  /** Called before each piece with its blob offset. */
  onPiece: (request: FakeRequest, offset: number) => Promise<void> | void = () => undefined;
  /** What is sent instead of the right bytes. */
  alter: (bytes: Buffer, offset: number, request: FakeRequest) => Buffer = (bytes) => bytes;
  readonly #blobs = new Map<string, Buffer>();

  constructor(name = "registry", origin = "https://registry.example") {
    this.name = name;
    this.origin = origin;
  }

  add(...samples: readonly { readonly id: string; readonly blob: Buffer }[]): this {
    for (const { id, blob } of samples) this.#blobs.set(id, blob);
    return this;
  }

  /** Blocks of each request, as [first, last]. */
  get spans(): [number, number][] {
    return this.requests.map(({ run }) => [run.firstBlock, run.lastBlock]);
  }

  get open(): number {
    return this.requests.filter((request) => !request.isOver).length;
  }

  async fetch(run: BlobRun, options: SourceFetchOptions): Promise<AsyncIterable<Uint8Array>> {
    const request = { run, ...options, isOver: false };
    this.requests.push(request);
    try {
      await raceAbort(Promise.resolve(this.onRequest(request)), options.signal);
    } catch (error) {
      request.isOver = true;
      throw error;
    }
    return this.#stream(request);
  }

  onBadBlock(_run: BlobRun, block: Block): void {
    this.badBlocks.push(block.index);
  }

  async *#stream(request: FakeRequest): AsyncGenerator<Uint8Array> {
    const blob = this.#blobs.get(request.run.layerId) ?? Buffer.alloc(0);
    const { start, end } = request.run.range;
    try {
      for (let offset = start; offset < end; offset += this.pieceBytes) {
        await raceAbort(Promise.resolve(this.onPiece(request, offset)), request.signal);
        const piece = Buffer.from(blob.subarray(offset, Math.min(end, offset + this.pieceBytes)));
        yield this.alter(piece, offset, request);
      }
    } finally {
      request.isOver = true;
    }
  }
}

/** A promise that the test settles. */
export interface Gate {
  readonly wait: Promise<void>;
  open(): void;
}

export function gate(): Gate {
  let open: () => void = () => undefined;
  const wait = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { wait, open };
}
