/** A real pass over a real layer fills both stores; every block is then given to another node. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { punchHole } from "../../../src/base/native.ts";
import { systemRandom } from "../../../src/base/random.ts";
import { BlockResolver, decodeBlock, decodeFrame } from "../../../src/block/index.ts";
import { DiskCache, nodeCacheFiles, openFill } from "../../../src/cache/index.ts";
import { makeLayerMap, openLayerMap } from "../../../src/image/index.ts";
import { digestOf, parseDiffId } from "../../../src/oci/index.ts";
import { chunksOf, packTar, sampleBytes } from "../../support/layers/index.ts";

const MIB = 1024 * 1024;
const NEVER = new AbortController().signal;

describe("a map-making pass that fills both stores", function () {
  this.timeout(60_000);

  it("has every block's blob bytes for other nodes, with no source asked, also after a restart", async () => {
    const root = await mkdtemp(join(tmpdir(), "faasnet-blob-fill-"));
    try {
      const tar = await packTar([{ name: "data", data: sampleBytes(7 * MIB) }]);
      const blob = gzipSync(tar);
      const diffId = parseDiffId(digestOf(tar));
      const id = diffId.slice("sha256:".length);
      const mapPath = join(root, "layer.map");
      const open = async (bootId: string): Promise<DiskCache> =>
        DiskCache.open(
          join(root, "cache"),
          {
            clock: systemClock,
            logger: silentLogger,
            files: nodeCacheFiles(punchHole),
            bootId,
            drop: () => Promise.resolve(),
          },
          { reserveBytes: 0, blobs: "on" },
        );
      {
        await using cache = await open("boot-1");
        const estimate = { blobBytes: blob.length, isCompressed: true };
        const fill = await cache.beginFill(id, estimate);
        assert.ok(fill?.plan.blob !== undefined);
        await using tarWriter = await openFill(fill.plan);
        await using blobWriter = await openFill(fill.plan.blob);
        await makeLayerMap({
          blob: chunksOf(blob, 50_000),
          descriptor: { digest: digestOf(blob), size: blob.length, mediaType: "tar+gzip" },
          diffId,
          mapPath,
          signal: NEVER,
          sink: {
            onTar: (bytes) => tarWriter.write(bytes),
            onBlob: (bytes) => blobWriter.write(bytes),
          },
        });
        const { keptBytes } = await tarWriter.finish();
        const { keptBytes: keptBlobBytes } = await blobWriter.finish();
        assert.equal(keptBlobBytes, blob.length);
        await using map = await openLayerMap(mapPath, { diffId });
        await cache.adoptFilled(fill, id, map.blockTable, { keptBytes, keptBlobBytes });
      }
      await using cache = await open("boot-2");
      await using map = await openLayerMap(mapPath, { diffId });
      const layer = await cache.layer(id, map.blockTable);
      await using resolver = new BlockResolver({
        clock: systemClock,
        random: systemRandom,
        logger: silentLogger,
        decodeBlock,
        decodeFrame,
      });
      resolver.addLayer(
        {
          id,
          blobDigest: digestOf(blob),
          blobBytes: blob.length,
          table: map.blockTable,
          readWindow: (block) => map.readWindow(block),
          sources: () => [],
        },
        layer,
      );
      assert.ok(map.blockTable.count >= 6);
      for (let index = 0; index < map.blockTable.count; index += 1) {
        const opened = await resolver.openBlob(id, index, {
          priority: 0,
          signal: NEVER,
          mayFetch: false,
        });
        assert.ok(opened !== undefined, `block ${index}`);
        const hash = createHash("sha256");
        for await (const piece of opened.pieces) hash.update(piece);
        await opened.verdict;
        assert.ok(hash.digest().equals(map.blockTable.at(index).blobSha256));
      }
      assert.equal(resolver.stats().served.disk.blocks, map.blockTable.count);
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });
});
