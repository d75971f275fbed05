/** An origin that holds everything, and a relay that passes blocks on while they arrive. */
import { createHash } from "node:crypto";
import type { FileHandle } from "node:fs/promises";
import { DaemonError } from "../../../src/base/errors.ts";
import { BlockTable, BlockTableBuilder } from "../../../src/block/index.ts";
import type { BlobRun, FetchPriority } from "../../../src/block/index.ts";
import { parseDigest } from "../../../src/oci/index.ts";
import type {
  BlockProvider,
  ProvidedBlock,
  TreeSource,
  WantedBlock,
} from "../../../src/peer/exchange/index.ts";
import type { PeerRef } from "../../../src/peer/peer-ref.ts";
import { KeyRing } from "../../../src/peer/transport/key-ring.ts";

export const MIB = 1024 * 1024;
export const RUN_BLOCKS = 8;
/** Runs that a child has under way, as the two bulk connections of design.md 7. */
export const RUNS_AT_ONCE = 2;
export const BLOCKS = 65_536;
export const KEPT_BLOCKS = 96;
export const CACHE_BYTES = 256 * MIB;
export const HEAP_MIB = 256;
export const WARM_BYTES = 300 * MIB;
export const WARM_ROUNDS_MAX = 60;
export const IMAGE = parseDigest(`sha256:${"1a".repeat(32)}`);
export const EPOCH = { counter: 1, manager: "m" };
export const RING = new KeyRing([Buffer.alloc(32, 9)]);

/** Two layers: large blocks for bulk, small ones for a reader that waits. */
export const LAYERS = {
  bulk: { id: "2b".repeat(32), digest: parseDigest(`sha256:${"3c".repeat(32)}`), bytes: MIB },
  small: { id: "4d".repeat(32), digest: parseDigest(`sha256:${"5e".repeat(32)}`), bytes: 65_536 },
} as const;
export type LayerName = keyof typeof LAYERS;

export interface Order {
  readonly role: "origin" | "relay" | "child";
  readonly isTls: boolean;
  readonly host: string;
  readonly parent?: PeerRef;
  readonly id: string;
  readonly seconds: number;
  readonly first: number;
}

/** What each block of a layer holds; the same in all of them. */
export function contentOf(name: LayerName): Buffer {
  const content = Buffer.alloc(LAYERS[name].bytes);
  let state = name.length;
  for (let at = 0; at < content.length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    content.writeUInt32LE(state, at);
  }
  return content;
}

export function tableOf(name: LayerName, sha256: Uint8Array): BlockTable {
  const { bytes } = LAYERS[name];
  const builder = new BlockTableBuilder();
  for (let index = 0; index < BLOCKS; index += 1) {
    builder.add({
      tarOffset: index * bytes,
      tarLength: bytes,
      blobOffset: index * bytes,
      blobLength: bytes,
      codec: "none",
      startBits: 0,
      atMemberStart: false,
      windowOffset: 0,
      windowLength: 0,
      blobSha256: sha256,
      tarSha256: sha256,
    });
  }
  return BlockTable.parse(builder.finish(), { blobBytes: BLOCKS * bytes });
}

export function runOf(name: LayerName, first: number, count: number): BlobRun {
  const { id, digest, bytes } = LAYERS[name];
  return {
    layerId: id,
    blobDigest: digest,
    blobBytes: BLOCKS * bytes,
    range: { start: first * bytes, end: (first + count) * bytes },
    firstBlock: first,
    lastBlock: first + count - 1,
  };
}

/** Holds every block. */
export class Origin implements BlockProvider {
  readonly #contents = { bulk: contentOf("bulk"), small: contentOf("small") };

  async open(want: WantedBlock): Promise<ProvidedBlock | undefined> {
    const content = this.#contents[want.layerId === LAYERS.bulk.id ? "bulk" : "small"];
    const pieces = (async function* () {
      for (let at = 0; at < content.length; at += 131_072) {
        yield content.subarray(at, at + 131_072);
      }
    })();
    return { length: content.length, pieces, verdict: Promise.resolve() };
  }
}

export interface Flight {
  readonly bytes: Buffer;
  length: number;
  wake: (() => void)[];
  readonly verdict: Promise<void>;
  readonly settle: (error?: unknown) => void;
}

export function newFlight(bytes: number): Flight {
  let settle: (error?: unknown) => void = () => undefined;
  const verdict = new Promise<void>((resolve, reject) => {
    settle = (error) => {
      if (error === undefined) resolve();
      else reject(error instanceof Error ? error : new Error("lost"));
    };
  });
  verdict.catch(() => undefined);
  return { bytes: Buffer.allocUnsafeSlow(bytes), length: 0, wake: [], verdict, settle };
}

/** Fetches what its children want, a run at a time: verifies, writes, and lets them follow. */
export class Relay implements BlockProvider {
  readonly #sources: Readonly<Record<LayerName, TreeSource>>;
  readonly #sha256: Readonly<Record<LayerName, Buffer>>;
  readonly #flights = new Map<string, Flight>();
  readonly #file: FileHandle;
  #position = 0;
  bytesIn = 0;

  constructor(
    sources: Readonly<Record<LayerName, TreeSource>>,
    sha256: Readonly<Record<LayerName, Buffer>>,
    file: FileHandle,
  ) {
    this.#sources = sources;
    this.#sha256 = sha256;
    this.#file = file;
  }

  async open(
    want: WantedBlock,
    { priority }: { readonly priority: FetchPriority },
  ): Promise<ProvidedBlock | undefined> {
    const name = want.layerId === LAYERS.bulk.id ? "bulk" : "small";
    const key = `${name} ${want.block}`;
    if (!this.#flights.has(key)) this.#launch(name, want.block, priority);
    const flight = this.#flights.get(key);
    if (flight === undefined) return undefined;
    return { length: flight.bytes.length, pieces: follow(flight), verdict: flight.verdict };
  }

  #launch(name: LayerName, block: number, priority: FetchPriority): void {
    const count = name === "bulk" ? RUN_BLOCKS : 1;
    const first = block - (block % count);
    const flights: Flight[] = [];
    for (let index = first; index < first + count; index += 1) {
      const flight = newFlight(LAYERS[name].bytes);
      flights.push(flight);
      this.#flights.set(`${name} ${index}`, flight);
    }
    for (const key of this.#flights.keys()) {
      if (this.#flights.size <= KEPT_BLOCKS) break;
      this.#flights.delete(key);
    }
    void this.#fly(name, runOf(name, first, count), { flights, priority });
  }

  async #fly(
    name: LayerName,
    run: BlobRun,
    {
      flights,
      priority,
    }: { readonly flights: readonly Flight[]; readonly priority: FetchPriority },
  ): Promise<void> {
    const { signal } = new AbortController();
    let at = 0;
    try {
      for await (const piece of await this.#sources[name].fetch(run, { signal, priority })) {
        this.bytesIn += piece.length;
        for (let offset = 0; offset < piece.length;) {
          const flight = flights[at];
          if (flight === undefined) throw new Error("too much");
          const part = piece.subarray(offset, offset + flight.bytes.length - flight.length);
          flight.bytes.set(part, flight.length);
          flight.length += part.length;
          offset += part.length;
          for (const wake of flight.wake.splice(0)) wake();
          if (flight.length < flight.bytes.length) continue;
          at += 1;
          this.#finish(name, flight);
        }
      }
    } catch (error) {
      for (const flight of flights.slice(at)) flight.settle(error);
    }
  }

  #finish(name: LayerName, flight: Flight): void {
    const digest = createHash("sha256").update(flight.bytes).digest();
    if (!digest.equals(this.#sha256[name])) {
      flight.settle(new DaemonError("data-loss", "wrong bytes"));
      return;
    }
    flight.settle();
    void this.#file.write(flight.bytes, 0, flight.bytes.length, this.#position);
    this.#position = (this.#position + flight.bytes.length) % CACHE_BYTES;
  }
}

async function* follow(flight: Flight): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < flight.bytes.length;) {
    if (at < flight.length) {
      const from = at;
      at = flight.length;
      yield flight.bytes.subarray(from, at);
    } else {
      await new Promise<void>((resolve) => flight.wake.push(resolve));
    }
  }
}
