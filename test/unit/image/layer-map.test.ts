import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { DaemonError, errorMessage, type ErrorCode } from "../../../src/base/errors.ts";
import { decodeBlock } from "../../../src/block/index.ts";
import { ErofsReader } from "../../../src/erofs/index.ts";
import {
  makeLayerMap,
  openLayerMap,
  type LayerMapSink,
  type MadeLayerMap,
} from "../../../src/image/index.ts";
import { digestOf, parseDiffId } from "../../../src/oci/index.ts";
import { chunksOf, filter, packTar, sampleBytes } from "../../support/layers/index.ts";

const MIB = 1024 * 1024;

describe("makeLayerMap", () => {
  let folder: string;
  let mapPath: string;
  let tar: Buffer;
  let blob: Buffer;

  before(async () => {
    tar = await packTar([
      { name: "dir/", type: "directory" },
      { name: "dir/data", data: sampleBytes(3 * MIB) },
      { name: "link", type: "link", linkname: "dir/data" },
    ]);
    blob = gzipSync(tar);
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "layer-map-"));
    mapPath = join(folder, "layers", "x.map");
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  interface Change {
    readonly bytes?: Buffer;
    readonly digestOf?: Buffer;
    readonly diffIdOf?: Buffer;
    readonly size?: number;
    readonly path?: string;
    readonly sink?: LayerMapSink;
    readonly signal?: AbortSignal;
    readonly tarBytesMax?: number;
    readonly pieceBytes?: number;
    readonly source?: AsyncIterable<Uint8Array>;
  }

  async function make(change: Change = {}): Promise<MadeLayerMap> {
    const bytes = change.bytes ?? blob;
    return makeLayerMap({
      blob: change.source ?? chunksOf(bytes, change.pieceBytes ?? 40_000),
      descriptor: {
        digest: digestOf(change.digestOf ?? bytes),
        size: change.size ?? bytes.length,
        mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
      },
      diffId: parseDiffId(digestOf(change.diffIdOf ?? tar)),
      mapPath: change.path ?? mapPath,
      signal: change.signal ?? new AbortController().signal,
      ...(change.sink === undefined ? {} : { sink: change.sink }),
      ...(change.tarBytesMax === undefined ? {} : { tarBytesMax: change.tarBytesMax }),
    });
  }

  async function rejects(change: Change, message: RegExp, code: ErrorCode): Promise<void> {
    await assert.rejects(make(change), (error) => {
      assert.ok(error instanceof DaemonError);
      assert.match(errorMessage(error), message);
      assert.equal(error.code, code);
      return true;
    });
    const left = await readdir(join(folder, "layers"));
    assert.deepEqual(left, []);
  }

  it("writes a map from which every block can be decoded and every file found", async () => {
    const { info, mapBytes } = await make();
    await using map = await openLayerMap(mapPath, { diffId: info.diffId });
    assert.deepEqual(map.info, info);
    assert.equal(map.sizes.fileBytes, mapBytes);
    assert.equal(info.tarBytes, tar.length);
    assert.deepEqual(
      [info.entries, info.files, info.directories, info.hardLinks, info.fileBytes],
      [3, 1, 1, 1, 3 * MIB],
    );
    await map.verify();
    let windows = 0;
    for (let index = 0; index < map.blockTable.count; index += 1) {
      const block = map.blockTable.at(index);
      const bytes = blob.subarray(block.blobOffset, block.blobOffset + block.blobLength);
      assert.equal(digestOf(bytes).slice(7), Buffer.from(block.blobSha256).toString("hex"));
      const window = await map.readWindow(block);
      if (window !== undefined) windows += 1;
      const decoded = await decodeBlock(block, bytes, window);
      const { tarOffset, tarLength } = block;
      assert.ok(tar.subarray(tarOffset, tarOffset + tarLength).equals(decoded));
    }
    assert.ok(windows >= 2);
    const reader = ErofsReader.open(await map.readMetadata());
    assert.ok(reader.lookup(reader.rootNid, "link") !== undefined);
  });

  it("gives equal bytes for equal layers, however they arrive", async () => {
    const paths = [mapPath, join(folder, "layers", "y.map")];
    for (const [index, path] of paths.entries()) await make({ path, pieceBytes: 777 + index });
    const [first, second] = await Promise.all(paths.map((path) => readFile(path)));
    assert.ok(first !== undefined && second !== undefined && first.equals(second));
  });

  it("streams the blob to the sink as it reads it, and waits for it", async () => {
    const parts: Buffer[] = [];
    let length = 0;
    let isBusy = false;
    await make({
      sink: {
        async onBlob(bytes, blobOffset) {
          assert.equal(blobOffset, length);
          assert.equal(isBusy, false);
          isBusy = true;
          await new Promise((resolve) => setImmediate(resolve));
          isBusy = false;
          parts.push(Buffer.from(bytes));
          length += bytes.length;
        },
      },
    });
    assert.ok(Buffer.concat(parts).equals(blob));
  });

  it("streams the tar and its blocks to the sink, and waits for it", async () => {
    const pieces: Buffer[] = [];
    let tarBytes = 0;
    const blocks: number[] = [];
    let isBusy = false;
    await make({
      sink: {
        async onTar(bytes, tarOffset) {
          assert.equal(isBusy, false);
          assert.equal(tarOffset, tarBytes);
          isBusy = true;
          await new Promise(setImmediate);
          pieces.push(Buffer.from(bytes));
          tarBytes += bytes.length;
          isBusy = false;
        },
        onBlock(block) {
          assert.ok(block.tarOffset + block.tarLength <= tarBytes);
          blocks.push(block.index);
        },
      },
    });
    assert.ok(Buffer.concat(pieces).equals(tar));
    assert.deepEqual(blocks, [0, 1, 2].slice(0, blocks.length));
    assert.ok(blocks.length >= 2);
  });

  it("maps layers whose media type lies about their compression", async () => {
    const zstd = await filter("zstd -qc", tar);
    const result = await make({ bytes: zstd });
    assert.equal(result.info.compression, "zstd");
    const plain = await make({ bytes: tar });
    assert.equal(plain.info.compression, "none");
    await using map = await openLayerMap(mapPath);
    assert.equal(map.sizes.windowsBytes, 0);
    await map.verify();
  });

  it("maps empty layers", async () => {
    const empty = Buffer.alloc(0);
    const { info } = await make({ bytes: empty, diffIdOf: empty });
    assert.deepEqual([info.tarBytes, info.blobBytes], [0, 0]);
    await using map = await openLayerMap(mapPath);
    assert.equal(map.blockTable.count, 0);
  });

  it("refuses wrong sizes, digests and diff IDs, and leaves nothing", async () => {
    const other = Buffer.from("other");
    await rejects({ digestOf: other }, /blob has digest sha256:/, "data-loss");
    await rejects({ diffIdOf: other }, /its tar has digest sha256:.*config says/, "data-loss");
    // The manifest itself is wrong: no other source helps.
    await rejects({ size: blob.length - 1 }, /blob is longer than/, "invalid-argument");
    await rejects({ size: blob.length + 1 }, /blob of \d+ bytes, not/, "invalid-argument");
    await rejects({ tarBytesMax: MIB }, /more than 1048576 bytes of tar/, "invalid-argument");
  });

  it("tells bytes that were damaged on the way from a layer that was made broken", async () => {
    const damaged = Buffer.from(blob);
    damaged.fill(0xff, 400_000, 401_000);
    const onTheWay = /blob has digest sha256:[0-9a-f]{64}: gzip: /;
    await rejects({ bytes: damaged, digestOf: blob }, onTheWay, "data-loss");
    await rejects({ bytes: damaged }, /made broken: gzip: /, "invalid-argument");

    const header = Buffer.from(tar);
    header.fill(0xff, 0, 512);
    const badHeader = /blob has digest sha256:[0-9a-f]{64}: tar header at offset 0: wrong header/;
    await rejects({ bytes: header, digestOf: tar, diffIdOf: tar }, badHeader, "data-loss");
    await rejects(
      { bytes: header, diffIdOf: header },
      /: tar header at offset 0/,
      "invalid-argument",
    );
  });

  it("names layer, entry and rule of a layer that it refuses", async () => {
    const bad = await packTar([{ name: "a/../../etc/passwd", data: "x" }]);
    await rejects(
      { bytes: bad, diffIdOf: bad },
      /^layer sha256:[0-9a-f]{64}: tar entry "a\/..\/..\/etc\/passwd" at offset 0: path climbs/,
      "invalid-argument",
    );
  });

  it("stops when cancelled, also while the source is silent", async () => {
    const controller = new AbortController();
    const silent: AsyncIterable<Uint8Array> = {
      [Symbol.asyncIterator]: () => ({
        next: () =>
          new Promise(() => {
            setImmediate(() => {
              controller.abort();
            });
          }),
      }),
    };
    await rejects({ source: silent, signal: controller.signal }, /canceled/, "canceled");
    const stopped = new AbortController();
    const sink: LayerMapSink = {
      onBlock: () => {
        stopped.abort();
      },
    };
    await rejects({ sink, signal: stopped.signal }, /canceled/, "canceled");
  });

  it("passes on what the source and the sink throw", async () => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      await Promise.resolve();
      throw new DaemonError("unavailable", "registry is down");
    }
    await rejects({ source: broken() }, /layer sha256:.*registry is down/, "unavailable");
    const sink: LayerMapSink = {
      onTar: () => {
        throw new DaemonError("resource-exhausted", "disk full");
      },
    };
    await rejects({ sink }, /disk full/, "resource-exhausted");
  });

  it("overwrites what an interrupted run left", async () => {
    await make();
    await writeFile(`${mapPath}.part`, "rubbish".repeat(1000));
    await make();
    await using map = await openLayerMap(mapPath);
    await map.verify();
    assert.deepEqual(await readdir(join(folder, "layers")), ["x.map"]);
  });

  describe("openLayerMap", () => {
    it("says that a map is missing or of another layer", async () => {
      const isCode =
        (code: ErrorCode) =>
        (error: unknown): boolean =>
          error instanceof DaemonError && error.code === code;
      await assert.rejects(openLayerMap(mapPath), isCode("not-found"));
      await make();
      const diffId = digestOf(Buffer.from("other"));
      await assert.rejects(openLayerMap(mapPath, { diffId }), isCode("data-loss"));
    });

    it("finds every changed, missing or added byte", async () => {
      await make();
      const bytes = await readFile(mapPath);
      const path = join(folder, "mutated.map");
      const head = 64 + 4 * 64;
      await fc.assert(
        fc.asyncProperty(
          fc.oneof(fc.nat({ max: head - 1 }), fc.nat({ max: bytes.length - 1 })),
          fc.integer({ min: 1, max: 255 }),
          fc.constantFrom("flip", "cut", "grow"),
          async (at, mask, kind) => {
            const copy = Buffer.from(bytes);
            copy[at] = (copy[at] ?? 0) ^ mask;
            const changed =
              kind === "flip"
                ? copy
                : kind === "cut"
                  ? bytes.subarray(0, at)
                  : Buffer.concat([bytes, Buffer.alloc(mask)]);
            await writeFile(path, changed);
            await assert.rejects(verify(path), isDataLossOrPadding(kind, bytes, at));
          },
        ),
        { numRuns: 120 },
      );
    });

    async function verify(path: string): Promise<void> {
      await using map = await openLayerMap(path);
      await map.verify();
      throw new Error("not noticed");
    }
  });
});

/** Gaps between sections are the only bytes that nobody reads. */
function isDataLossOrPadding(kind: string, bytes: Buffer, at: number): (error: unknown) => boolean {
  return (error) => {
    const isGap = kind === "flip" && bytes[at] === 0;
    return (error instanceof DaemonError && error.code === "data-loss") || isGap;
  };
}
