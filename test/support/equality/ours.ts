/**
 * Our trees: layer maps, merged, mounted over a keeper in a process of its own, walked by another
 * one. What is read comes block by block out of the blobs, as from a registry.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";
import {
  decodeBlock,
  decodeFrame,
  frameSpan,
  isSequential,
  type BlockTable,
} from "../../../src/block/index.ts";
import { ErofsReader } from "../../../src/erofs/index.ts";
import {
  makeLayerMap,
  mergeLayers,
  openLayerMap,
  type LayerMap,
} from "../../../src/image/index.ts";
import { chainIds, parseDiffId, parseDigest } from "../../../src/oci/index.ts";
import { MOUNT_MODES, Rootfs, type ChainLayer, type MountMode } from "../../../src/rootfs/index.ts";
import { KeeperFixture, never } from "../fuse/keeper-fixture.ts";
import { walkTree, type TreeManifest } from "../lab/index.ts";
import { chunksOf } from "../layers/index.ts";
import type { BuiltImage } from "./built-image.ts";

const wait = { signal: never };

interface OpenLayer {
  readonly map: LayerMap;
  readonly reader: ErofsReader;
  readonly chainLayer: ChainLayer;
  readonly blob: Buffer;
  /** Decoded when first read. */
  readonly blocks: Map<number, Promise<Uint8Array>>;
}

export class Ours implements AsyncDisposable {
  readonly #fixture: KeeperFixture;
  readonly #rootfs: ReadonlyMap<MountMode, Rootfs>;
  readonly #layers: Map<string, OpenLayer>;
  #count = 0;

  private constructor(
    fixture: KeeperFixture,
    rootfs: ReadonlyMap<MountMode, Rootfs>,
    layers: Map<string, OpenLayer>,
  ) {
    this.#fixture = fixture;
    this.#rootfs = rootfs;
    this.#layers = layers;
  }

  static async start(): Promise<Ours> {
    const fixture = await KeeperFixture.start();
    const layers = new Map<string, OpenLayer>();
    const keeper = fixture.client(async (layerId, range) => {
      const layer = layers.get(layerId);
      if (layer === undefined) throw new Error(`nobody serves ${layerId}`);
      return { data: await readLayer(layer, range) };
    });
    const rootfs = new Map<MountMode, Rootfs>();
    for (const mode of MOUNT_MODES) {
      const options = { stateDir: fixture.stateDir, clock: systemClock, log: silentLogger };
      rootfs.set(mode, fixture.scope.use(await Rootfs.open({ ...options, keeper, mode })));
    }
    return new Ours(fixture, rootfs, layers);
  }

  /** The tree in every mode, one after the other: a layer is served at one place. */
  async trees(image: BuiltImage): Promise<ReadonlyMap<MountMode, TreeManifest>> {
    const folder = join(this.#fixture.folder, `i${(this.#count += 1)}`);
    await mkdir(folder);
    try {
      const layers: OpenLayer[] = [];
      for (const layer of image.layers) layers.push(await this.#openLayer(folder, layer));
      const metadataPath = join(folder, "chain.erofs");
      await writeFile(metadataPath, mergeLayers(layers.map(({ reader }) => reader)));
      const chainId =
        chainIds(image.layers.map(({ diffId }) => parseDiffId(diffId)))
          .at(-1)
          ?.slice("sha256:".length) ?? "";
      const chain = { chainId, metadataPath, layers: layers.map((layer) => layer.chainLayer) };
      const trees = new Map<MountMode, TreeManifest>();
      for (const [mode, rootfs] of this.#rootfs) {
        const { path } = await rootfs.mountChain(chain, wait);
        try {
          trees.set(mode, await walkTree(path));
        } finally {
          await rootfs.releaseChain(chainId, wait);
        }
      }
      return trees;
    } finally {
      for (const { map } of this.#layers.values()) await map.close();
      this.#layers.clear();
      await rm(folder, { recursive: true });
    }
  }

  async #openLayer(folder: string, layer: BuiltImage["layers"][number]): Promise<OpenLayer> {
    const { blob, digest, diffId, mediaType, tar } = layer;
    const layerId = diffId.slice("sha256:".length);
    const known = this.#layers.get(layerId);
    if (known !== undefined) return known;
    const mapPath = join(folder, `${layerId}.map`);
    await makeLayerMap({
      blob: chunksOf(blob),
      descriptor: { digest: parseDigest(digest), size: blob.length, mediaType },
      diffId: parseDiffId(diffId),
      mapPath,
      signal: never,
    });
    const map = await openLayerMap(mapPath);
    const decodedPath = join(folder, layerId);
    await writeFile(decodedPath, "");
    await truncate(decodedPath, tar.length);
    const chainLayer = { layerId, tarBytes: tar.length, decodedPath, present: () => [] };
    const reader = ErofsReader.open(await map.readMetadata());
    const open = { map, reader, chainLayer, blob, blocks: new Map<number, Promise<Uint8Array>>() };
    this.#layers.set(layerId, open);
    return open;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#fixture[Symbol.asyncDispose]();
  }
}

/** What is behind the tar's end reads as zeros. */
async function readLayer(layer: OpenLayer, range: ByteRange): Promise<Buffer> {
  const bytes = Buffer.alloc(range.end - range.start);
  const table = layer.map.blockTable;
  const end = Math.min(range.end, table.tarBytes);
  if (range.start >= end) return bytes;
  const { first, last } = table.span({ start: range.start, end });
  for (let index = first; index <= last; index += 1) {
    const { tarOffset } = table.at(index);
    const data = layer.blocks.get(index) ?? readBlock(layer, index);
    layer.blocks.set(index, data);
    const from = Math.max(0, range.start - tarOffset);
    bytes.set((await data).subarray(from, range.end - tarOffset), tarOffset + from - range.start);
  }
  return bytes;
}

async function readBlock({ map, blob }: OpenLayer, index: number): Promise<Uint8Array> {
  const block = map.blockTable.at(index);
  const stored = blob.subarray(block.blobOffset, block.blobOffset + block.blobLength);
  let decoded: Uint8Array;
  if (isSequential(block)) {
    // Its stored bytes are those of several blocks: no digest of their own.
    decoded = await decodeFromFrame(map.blockTable, index, stored);
  } else {
    assert.deepEqual(sha256(stored), Buffer.from(block.blobSha256));
    decoded = await decodeBlock(block, stored, await map.readWindow(block));
  }
  assert.deepEqual(sha256(decoded), Buffer.from(block.tarSha256));
  return decoded;
}

/** A block that shares its zstd frame, which is decoded for each of them again: they are few. */
async function decodeFromFrame(
  table: BlockTable,
  index: number,
  frame: Uint8Array,
): Promise<Uint8Array> {
  const { first, last } = frameSpan(table, index);
  const start = table.at(first).tarOffset;
  const end = table.at(last).tarOffset + table.at(last).tarLength;
  const pieces: Uint8Array[] = [];
  for await (const piece of decodeFrame(chunksOf(frame), {
    tarBytes: end - start,
    signal: never,
  })) {
    pieces.push(Uint8Array.from(piece));
  }
  const { tarOffset, tarLength } = table.at(index);
  return Buffer.concat(pieces).subarray(tarOffset - start, tarOffset - start + tarLength);
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}
