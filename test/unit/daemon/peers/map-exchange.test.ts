/** A layer's map from the members above: taken when it is the image's, made here when it is not. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import type { Clock } from "../../../../src/base/clock.ts";
import { systemClock } from "../../../../src/base/clock.ts";
import { silentLogger } from "../../../../src/base/log.ts";
import type { LayerRecord } from "../../../../src/daemon/image-store.ts";
import { MapExchange } from "../../../../src/daemon/peers/map-exchange.ts";
import { makeLayerMap } from "../../../../src/image/index.ts";
import { digestOf, parseDiffId } from "../../../../src/oci/index.ts";
import type { FetchedMap, PeerRef, Position } from "../../../../src/peer/index.ts";
import { chunksOf, packTar, sampleBytes } from "../../../support/layers/index.ts";

const IMAGE = digestOf(Buffer.from("image"));
const MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip";
const PARENT: PeerRef = {
  ...{ id: "parent", boot: "ab".repeat(16), address: { host: "10.0.0.1", port: 1 } },
  ...{ exchangePort: 2, zone: "", version: 1 },
};
const POSITION: Position = {
  ...{ image: IMAGE, epoch: { counter: 1, manager: "m" }, slot: 1, depth: 1, size: 2, children: 0 },
  ...{ root: PARENT, parent: PARENT, isRoot: false, zone: "" },
};
/** Rounds of asking follow each other at once. */
const quickClock: Clock = {
  nowMs: () => systemClock.nowMs(),
  wallNs: () => systemClock.wallNs(),
  timer: (delayMs, callback) => systemClock.timer(delayMs, callback),
  sleep: async (_delayMs, options) => systemClock.sleep(1, options),
};

describe("A layer's map from a parent", () => {
  let folder: string;
  let tar: Buffer;
  let asked: number;

  before(async () => {
    tar = await packTar([{ name: "data", data: sampleBytes(100_000) }]);
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "map-exchange-"));
    asked = 0;
  });

  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  function layerOf(blob: Buffer): LayerRecord {
    const diffId = parseDiffId(digestOf(tar));
    return { diffId, blobDigest: digestOf(blob), blobBytes: blob.length, mediaType: MEDIA_TYPE };
  }

  /** The bytes of the map that a parent has made of this blob. */
  async function mapOf(blob: Buffer): Promise<Buffer> {
    const mapPath = join(folder, "parent", "x.map");
    const descriptor = { digest: digestOf(blob), size: blob.length, mediaType: MEDIA_TYPE };
    const { signal } = new AbortController();
    const { diffId } = layerOf(blob);
    await makeLayerMap({ blob: chunksOf(blob, 40_000), descriptor, diffId, mapPath, signal });
    return readFile(mapPath);
  }

  /** Whether a map was taken, with a parent that sends these bytes. */
  async function fetch(bytes: Buffer, layer: LayerRecord): Promise<boolean> {
    const send = async (): Promise<FetchedMap> => {
      asked += 1;
      return { size: bytes.length, pieces: chunksOf(bytes, 10_000), from: PARENT };
    };
    const exchange = new MapExchange({
      node: { onPosition: () => () => undefined, position: () => POSITION },
      client: { fetchMap: send, fetchMapFrom: send },
      clock: quickClock,
      log: silentLogger,
    });
    const mapPath = join(folder, "x.map");
    return exchange.fetch(IMAGE, layer, { mapPath, signal: AbortSignal.timeout(10_000) });
  }

  it("is taken when it is of the image's own blob", async () => {
    const blob = gzipSync(tar);
    const bytes = await mapOf(blob);

    assert.equal(await fetch(bytes, layerOf(blob)), true);

    assert.ok((await readFile(join(folder, "x.map"))).equals(bytes));
  });

  it("is made here when those above have that of another blob of the layer", async () => {
    const bytes = await mapOf(gzipSync(tar));

    assert.equal(await fetch(bytes, layerOf(gzipSync(tar, { level: 1 }))), false);

    assert.equal(asked, 1);
    assert.deepEqual(await readdir(folder), ["parent"]);
  });

  it("is made here when those above send wrong ones, after some tries", async () => {
    const blob = gzipSync(tar);
    const bytes = await mapOf(blob);
    bytes.fill(7, bytes.length - 200);

    assert.equal(await fetch(bytes, layerOf(blob)), false);

    assert.equal(asked, 3);
    assert.deepEqual(await readdir(folder), ["parent"]);
  });
});
