/** All maps of an image or none, shared work, and work that outlives its caller. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DaemonError } from "../../../src/base/errors.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { ImageEnsurer } from "../../../src/daemon/ensure-image.ts";
import type { EnsureProgress, LayerMapMaker } from "../../../src/daemon/ensure-image.ts";
import { ImageStore } from "../../../src/daemon/image-store.ts";
import type { ImageRecord, LayerRecord } from "../../../src/daemon/image-store.ts";
import { rootPaths } from "../../../src/daemon/paths.ts";
import { chainIds, digestOf, parseChainId, parseDiffId } from "../../../src/oci/index.ts";
import type { DiffId } from "../../../src/oci/index.ts";

function layerNamed(name: string): LayerRecord {
  const blobDigest = digestOf(Buffer.from(`blob ${name}`));
  const diffId = parseDiffId(digestOf(Buffer.from(name)));
  return { diffId, blobDigest, blobBytes: 100, mediaType: "m" };
}

function imageOf(...names: string[]): ImageRecord {
  return {
    manifestDigest: digestOf(Buffer.from(`manifest ${names.join()}`)),
    reference: "host/repo:1",
    sources: ["host/repo"],
    manifest: "{}",
    config: "{}",
    layers: names.map(layerNamed),
  };
}

/** Makes maps when told to. */
class FakeMaker implements LayerMapMaker {
  readonly made = new Set<DiffId>();
  readonly damaged = new Set<DiffId>();
  readonly started: DiffId[] = [];
  readonly aborted: DiffId[] = [];
  readonly #settle = new Map<DiffId, (error?: Error) => void>();

  has(diffId: DiffId): boolean {
    return this.made.has(diffId);
  }

  forgetDamaged(layers: readonly LayerRecord[]): Promise<boolean> {
    const found = layers.some(({ diffId }) => this.damaged.has(diffId));
    for (const diffId of this.damaged) this.made.delete(diffId);
    this.damaged.clear();
    return Promise.resolve(found);
  }

  fetch(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async make(
    { diffId }: LayerRecord,
    _sources: readonly string[],
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> {
    this.started.push(diffId);
    await new Promise<void>((resolve, reject) => {
      signal.addEventListener("abort", () => {
        this.aborted.push(diffId);
        reject(new DaemonError("canceled", "told to stop"));
      });
      this.#settle.set(diffId, (error) => {
        if (error === undefined) resolve();
        else reject(error);
      });
    });
    this.made.add(diffId);
  }

  settle(layer: LayerRecord | undefined, error?: Error): void {
    if (layer !== undefined) this.#settle.get(layer.diffId)?.(error);
  }
}

async function turns(): Promise<void> {
  for (let count = 0; count < 20; count += 1) await Promise.resolve();
}

describe("ImageEnsurer", () => {
  const signal = new AbortController().signal;
  let folder: string;
  let store: ImageStore;
  let maker: FakeMaker;
  let merged: number[];
  let mergeFailure: Error | undefined;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-ensure-"));
    const paths = rootPaths(folder);
    await mkdir(paths.images);
    store = await ImageStore.open(paths, silentLogger);
    maker = new FakeMaker();
    merged = [];
    mergeFailure = undefined;
  });
  afterEach(async () => {
    await rm(folder, { recursive: true });
  });

  function ensurer(
    image: ImageRecord,
    builders = 4,
  ): { ensurer: ImageEnsurer; resolved: number[] } {
    const resolved: number[] = [];
    const resolve = (): Promise<ImageRecord> => {
      resolved.push(1);
      return Promise.resolve(image);
    };
    const merge = (layers: readonly LayerRecord[]): Promise<void> => {
      merged.push(layers.length);
      const isWell = merged.length > 1 && maker.damaged.size === 0;
      if (mergeFailure === undefined || isWell) return Promise.resolve();
      return Promise.reject(mergeFailure);
    };
    const options = { builders, merge, stop: signal };
    return { ensurer: new ImageEnsurer(store, resolve, maker, silentLogger, options), resolved };
  }

  const request = { reference: "host/repo:1", alternatives: [] };

  it("makes a map again that proves damaged when it is merged", async () => {
    const image = imageOf("a", "b");
    for (const { diffId } of image.layers) maker.made.add(diffId);
    maker.damaged.add(image.layers[1]?.diffId ?? parseDiffId(""));
    mergeFailure = new DaemonError("data-loss", "meta digest");
    const work = ensurer(image).ensurer.ensure(request, { signal });
    await turns();
    maker.settle(image.layers[1]);

    await work;
    assert.deepEqual(merged, [2, 2]);
    assert.deepEqual(maker.started, [image.layers[1]?.diffId]);
  });

  it("records no image whose layers cannot be merged", async () => {
    const image = imageOf("a", "b");
    mergeFailure = new DaemonError("data-loss", "too much of it");
    const work = ensurer(image).ensurer.ensure(request, { signal });
    await turns();
    for (const layer of image.layers) maker.settle(layer);

    await assert.rejects(work, /too much of it/);
    assert.deepEqual(merged, [2]);
    assert.deepEqual(store.images, []);
  });

  it("records the image only when the last map is complete", async () => {
    const image = imageOf("a", "b");
    const work = ensurer(image).ensurer.ensure(request, { signal });
    await turns();

    maker.settle(image.layers[0]);
    await turns();
    assert.equal(store.images.length, 0);
    maker.settle(image.layers[1]);
    await work;

    assert.deepEqual(store.images, [image]);
  });

  it("fails as a whole when one layer cannot be mapped, and stops the others", async () => {
    const image = imageOf("a", "b");
    const work = ensurer(image).ensurer.ensure(request, { signal });
    await turns();

    maker.settle(image.layers[0], new DaemonError("unimplemented", "encrypted"));

    await assert.rejects(work, { code: "unimplemented", message: "encrypted" });
    assert.deepEqual(maker.aborted, [image.layers[1]?.diffId]);
    assert.equal(store.images.length, 0);
  });

  it("goes on when its caller leaves, and a retry joins it", async () => {
    const image = imageOf("a");
    const { ensurer: one, resolved } = ensurer(image);
    const leave = new AbortController();
    const first = one.ensure(request, { signal: leave.signal });
    await turns();

    leave.abort(new DaemonError("canceled", "ctrl-C"));
    await assert.rejects(first, { code: "canceled" });
    const second = one.ensure(request, { signal });
    await turns();
    maker.settle(image.layers[0]);
    await second;

    assert.deepEqual(resolved, [1]);
    assert.deepEqual(maker.started, [image.layers[0]?.diffId]);
    assert.deepEqual(maker.aborted, []);
  });

  it("makes no map that is there, and no more at once than it may", async () => {
    const image = imageOf("a", "b", "c");
    const known = image.layers[0];
    assert.ok(known !== undefined);
    maker.made.add(known.diffId);
    const work = ensurer(image, 1).ensurer.ensure(request, { signal });
    await turns();

    assert.deepEqual(maker.started, [image.layers[1]?.diffId]);
    maker.settle(image.layers[1]);
    await turns();
    maker.settle(image.layers[2]);
    await work;
    assert.equal(maker.started.length, 2);
  });

  it("tells every listener how far it is", async () => {
    const image = imageOf("a");
    const seen: EnsureProgress[] = [];
    const work = ensurer(image).ensurer.ensure(request, {
      signal,
      onProgress: (progress) => seen.push(progress),
    });
    await turns();
    maker.settle(image.layers[0]);
    await work;

    assert.equal(seen[0]?.phase, "resolve");
    const last = { phase: "map", doneBytes: 100, totalBytes: 100, layersDone: 1, layers: 1 };
    assert.deepEqual(seen.at(-1), last);
  });

  it("refuses an image that does not hold the chain that was asked for", async () => {
    const image = imageOf("a");
    const chainId = parseChainId(digestOf(Buffer.from("another")));

    const work = ensurer(image).ensurer.ensure({ ...request, chainId }, { signal });

    await assert.rejects(work, { code: "failed-precondition" });
  });

  it("keeps the chain of every prefix, and each source once, the newest first", async () => {
    const image = imageOf("a", "b");
    for (const { diffId } of image.layers) maker.made.add(diffId);
    await ensurer(image).ensurer.ensure(request, { signal });

    await store.add({ ...image, sources: ["other/repo", "host/repo"] });

    const reopened = await ImageStore.open(rootPaths(folder), silentLogger);
    const ids = chainIds(image.layers.map((layer) => layer.diffId));
    assert.deepEqual(
      ids.map((id) => reopened.chain(id)?.length),
      [1, 2],
    );
    const blob = image.layers[0]?.blobDigest;
    assert.ok(blob !== undefined);
    assert.deepEqual(reopened.sourcesOf(blob), ["other/repo", "host/repo"]);
  });
});
