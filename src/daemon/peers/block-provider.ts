/** What this node gives to its children: blocks and maps. */
import { open, stat } from "node:fs/promises";
import { DaemonError } from "../../base/errors.ts";
import type { BlockResolver } from "../../block/index.ts";
import { parseDiffId } from "../../oci/index.ts";
import type {
  BlockProvider,
  MapProvider,
  ProvidedBlock,
  ProvideOptions,
  WantedBlock,
} from "../../peer/index.ts";
import type { LayerStore } from "../layer-store.ts";
import type { TreeImages } from "./tree-images.ts";

/** Bytes of a map that are read at once. */
const MAP_PIECE_BYTES = 256 * 1024;

export class CachedBlockProvider implements BlockProvider {
  readonly #layers: LayerStore;
  readonly #resolver: BlockResolver;

  constructor(layers: LayerStore, resolver: BlockResolver) {
    this.#layers = layers;
    this.#resolver = resolver;
  }

  async open(want: WantedBlock, options: ProvideOptions): Promise<ProvidedBlock | undefined> {
    const diffId = parseDiffId(`sha256:${want.layerId}`);
    if (!this.#layers.has(diffId)) return undefined;
    const { map } = await this.#layers.openLayer(diffId);
    const { blockTable: table } = map;
    if (want.block >= table.count || map.info.blobDigest !== want.blobDigest) {
      throw new DaemonError("invalid-argument", `layer ${want.layerId} has no such block here`);
    }
    const { blobOffset, blobLength } = table.at(want.block);
    if (want.start !== blobOffset || want.end !== blobOffset + blobLength) {
      throw new DaemonError("invalid-argument", `the range is not block ${want.block}'s`);
    }
    // Asked to fetch is the root, or whom a second child asks: what is fetched then stays.
    const keepAfter = options.mayFetch ? 1 : 2;
    return this.#resolver.openBlob(want.layerId, want.block, { ...options, keepAfter });
  }
}

export class StoredMapProvider implements MapProvider {
  readonly #layers: LayerStore;
  readonly #images: Pick<TreeImages, "isEnsuring">;

  constructor(layers: LayerStore, images: Pick<TreeImages, "isEnsuring">) {
    this.#layers = layers;
    this.#images = images;
  }

  async open(
    diffIdHex: string,
    { signal, image }: { readonly signal: AbortSignal; readonly image: string },
  ): Promise<{ readonly size: number; readonly pieces: AsyncIterable<Uint8Array> }> {
    const diffId = parseDiffId(`sha256:${diffIdHex}`);
    if (!this.#layers.has(diffId)) {
      if (!this.#images.isEnsuring(image)) {
        throw new DaemonError("not-found", `no map of layer ${diffId} is here or on its way`);
      }
      await this.#layers.whenKnown(diffId, { signal });
    }
    const path = this.#layers.mapPath(diffId);
    const { size } = await stat(path);
    return { size, pieces: readPieces(path, size) };
  }
}

/** Opens the file when it is read, and closes it when the reader has left. */
async function* readPieces(path: string, size: number): AsyncGenerator<Uint8Array> {
  const file = await open(path, "r");
  try {
    for (let offset = 0; offset < size;) {
      const piece = Buffer.allocUnsafe(Math.min(MAP_PIECE_BYTES, size - offset));
      const { bytesRead } = await file.read(piece, 0, piece.length, offset);
      if (bytesRead === 0) throw new DaemonError("data-loss", `${path} is shorter than it was`);
      offset += bytesRead;
      yield piece.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
