/**
 * Our trees: layer maps, merged, mounted over a keeper in a process of its own, walked by another
 * one. What is read comes block by block out of the blobs, as from a registry.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdir, rm, truncate, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";
import type { Scope } from "../../../src/base/scope.ts";
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
import { erofsTools, parseTree, treeWalker, type TreeManifest } from "../lab/index.ts";
import { chunksOf } from "../layers/index.ts";
import type { BuiltImage } from "./built-image.ts";
import { Shell } from "./shell.ts";

const wait = { signal: never };
const FSCK = join(erofsTools, "fsck.erofs");

interface OpenLayer {
  readonly map: LayerMap;
  readonly mapPath: string;
  readonly reader: ErofsReader;
  readonly chainLayer: ChainLayer;
  readonly blob: Buffer;
  /** Decoded when first read. */
  readonly blocks: Map<number, Promise<Uint8Array>>;
}

interface OursParts {
  readonly fixture: KeeperFixture;
  readonly rootfs: ReadonlyMap<MountMode, Rootfs>;
  readonly layers: Map<string, OpenLayer>;
  readonly shell: Shell;
  readonly walker: string;
  /** For what need not lie on a disk. */
  readonly scratch: string;
}

export class Ours {
  readonly #parts: OursParts;
  #count = 0;
  /** Metadata images that fsck.erofs found sound. */
  checked = 0;

  private constructor(parts: OursParts) {
    this.#parts = parts;
  }

  /** All of it ends with `scope`. */
  static async start(
    scope: Scope,
    options: { readonly scratch: string; readonly env: Readonly<Record<string, string>> },
  ): Promise<Ours> {
    const fixture = await startFixture(scope);
    // Before its mounts go: a read that nobody answers any more would hold them.
    scope.defer(() => fixture.killKeeper());
    const layers = new Map<string, OpenLayer>();
    const keeper = fixture.client(async (layerId, range) => {
      const layer = layers.get(layerId);
      if (layer === undefined) throw new Error(`nobody serves ${layerId}`);
      return { data: await readLayer(layer, range) };
    });
    const rootfs = new Map<MountMode, Rootfs>();
    for (const mode of MOUNT_MODES) {
      const common = { stateDir: fixture.stateDir, clock: systemClock, log: silentLogger };
      rootfs.set(mode, fixture.scope.use(await Rootfs.open({ ...common, keeper, mode })));
    }
    const { scratch, env } = options;
    const shell = scope.use(new Shell(env));
    return new Ours({ fixture, rootfs, layers, shell, walker: await treeWalker(), scratch });
  }

  /** The tree in every mode, one after the other: a layer is served at one place. */
  async trees(image: BuiltImage): Promise<ReadonlyMap<MountMode, TreeManifest>> {
    const folder = join(this.#parts.fixture.folder, `i${(this.#count += 1)}`);
    await mkdir(folder);
    try {
      const layers: OpenLayer[] = [];
      for (const layer of image.layers) layers.push(await this.#openLayer(folder, layer));
      const metadataPath = join(folder, "chain.erofs");
      await writeFile(metadataPath, mergeLayers(layers.map(({ reader }) => reader)));
      await this.#fsck(metadataPath, layers);
      const chainId =
        chainIds(image.layers.map(({ diffId }) => parseDiffId(diffId)))
          .at(-1)
          ?.slice("sha256:".length) ?? "";
      const chain = { chainId, metadataPath, layers: layers.map((layer) => layer.chainLayer) };
      const trees = new Map<MountMode, TreeManifest>();
      for (const [mode, rootfs] of this.#parts.rootfs) {
        const { path } = await rootfs.mountChain(chain, wait);
        try {
          trees.set(mode, parseTree(await this.#parts.shell.run([this.#parts.walker, path])));
        } finally {
          await rootfs.releaseChain(chainId, wait);
        }
      }
      return trees;
    } finally {
      await this.#close(folder);
    }
  }

  async #close(folder: string): Promise<void> {
    for (const { map, mapPath } of this.#parts.layers.values()) {
      await map.close();
      await unlink(mapPath);
    }
    this.#parts.layers.clear();
    await rm(folder, { recursive: true });
  }

  /** The files' places too; their content is zeros here, so nobody reads it. */
  async #fsck(metadataPath: string, layers: readonly OpenLayer[]): Promise<void> {
    const devices = layers.map(({ chainLayer }) => `--device=${chainLayer.decodedPath}`);
    const errors = await this.#parts.shell.run([
      FSCK,
      "-d1",
      "--extract",
      ...devices,
      metadataPath,
    ]);
    // A wrong checksum of the superblock is told, but its status is 0.
    assert.equal(errors, "", "fsck.erofs");
    this.checked += 1;
  }

  async #openLayer(folder: string, layer: BuiltImage["layers"][number]): Promise<OpenLayer> {
    const { blob, digest, diffId, mediaType, tar } = layer;
    const layerId = diffId.slice("sha256:".length);
    const known = this.#parts.layers.get(layerId);
    if (known !== undefined) return known;
    const mapPath = join(this.#parts.scratch, `${layerId}.map`);
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
    const metadata = await map.readMetadata();
    const reader = ErofsReader.open(metadata);
    const blocks = new Map<number, Promise<Uint8Array>>();
    const open = { map, mapPath, reader, chainLayer, blob, blocks };
    this.#parts.layers.set(layerId, open);
    const metadataPath = join(this.#parts.scratch, "layer.erofs");
    await writeFile(metadataPath, metadata);
    await this.#fsck(metadataPath, [open]);
    return open;
  }
}

/** Gone again where the scope ended meanwhile (ctrl-C). */
async function startFixture(scope: Scope): Promise<KeeperFixture> {
  const fixture = await KeeperFixture.start();
  try {
    return scope.use(fixture);
  } catch (error) {
    await fixture[Symbol.asyncDispose]();
    throw error;
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
