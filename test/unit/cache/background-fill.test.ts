/** Filling whole layers in the background. */
import assert from "node:assert/strict";
import { errorCode } from "../../../src/base/errors.ts";
import { BlockResolver } from "../../../src/block/index.ts";
import { fillLayers } from "../../../src/cache/index.ts";
import type { CachedLayer, DiskCache, FillProgress } from "../../../src/cache/index.ts";
import { CacheBench } from "../../support/block/cache-bench.ts";
import { FakeSource } from "../../support/block/fake-source.ts";
import { halfRandom, listLogger, watch } from "../../support/block/resolver.ts";
import { evenLayer, fakeDecodeBlock, fakeDecodeFrame } from "../../support/block/sample-layer.ts";
import type { SampleLayer } from "../../support/block/sample-layer.ts";

const MIB = 1024 * 1024;
const SIGNAL = new AbortController().signal;

interface FillBench {
  readonly bench: CacheBench;
  readonly cache: DiskCache;
  readonly resolver: BlockResolver;
  readonly source: FakeSource;
  readonly layers: readonly CachedLayer[];
}

async function openFillBench(
  quotaBytes: number,
  samples: readonly SampleLayer[],
): Promise<FillBench> {
  const bench = new CacheBench({ quotaBytes });
  const cache = await bench.open();
  const source = new FakeSource().add(...samples);
  const resolver = new BlockResolver({
    clock: bench.clock,
    random: halfRandom,
    logger: listLogger(bench.events),
    decodeBlock: fakeDecodeBlock,
    decodeFrame: fakeDecodeFrame,
  });
  const layers: CachedLayer[] = [];
  for (const sample of samples) {
    const layer = await cache.layer(sample.id, sample.table);
    resolver.addLayer(sample.layer([source]), layer);
    layers.push(layer);
  }
  return { bench, cache, resolver, source, layers };
}

describe("fillLayers", () => {
  it("brings every missing block in large requests and reports progress", async () => {
    const samples = [evenLayer(1, 20, MIB), evenLayer(2, 3, MIB)];
    const { bench, cache, resolver, source, layers } = await openFillBench(100 * MIB, samples);
    await using _cache = cache;
    await using _resolver = resolver;
    const seen: FillProgress[] = [];
    const options = {
      rateBytesPerSecond: 0,
      signal: SIGNAL,
      mayEvict: false,
      onProgress: (progress: FillProgress): void => {
        seen.push(progress);
      },
    };
    const first = layers[0];
    const sample = samples[0];
    assert.ok(first !== undefined && sample !== undefined);
    await bench.write(first, sample, 4);
    const result = await fillLayers({ clock: bench.clock, cache, resolver }, layers, options);
    assert.deepEqual(result, { doneBytes: 23 * MIB, totalBytes: 23 * MIB, isComplete: true });
    assert.deepEqual(seen.at(-1), { doneBytes: 23 * MIB, totalBytes: 23 * MIB });
    assert.ok(layers.every((layer) => layer.presentRanges().length === 1));
    assert.ok(source.requests.every(({ priority }) => priority === 3));
    assert.deepEqual(source.spans, [
      [0, 3],
      [5, 7],
      [8, 15],
      [16, 19],
      [0, 2],
    ]);
    const before = source.requests.length;
    await fillLayers({ clock: bench.clock, cache, resolver }, layers, options);
    assert.equal(source.requests.length, before);
  });

  it("keeps to its rate", async () => {
    const samples = [evenLayer(3, 32, MIB)];
    const { bench, cache, resolver, source, layers } = await openFillBench(100 * MIB, samples);
    await using _cache = cache;
    await using _resolver = resolver;
    const options = { rateBytesPerSecond: 4 * MIB, signal: SIGNAL, mayEvict: false };
    const fill = watch(fillLayers({ clock: bench.clock, cache, resolver }, layers, options));
    await bench.clock.advance(100);
    assert.equal(source.requests.length, 1);
    await bench.clock.advance(3000);
    assert.equal(source.requests.length, 2);
    await bench.clock.advance(3500);
    assert.equal(fill.state, "done");
  });

  it("stops where it would have to evict, and says so", async () => {
    const samples = [evenLayer(4, 32, MIB)];
    const { bench, cache, resolver, layers } = await openFillBench(20 * MIB, samples);
    await using _cache = cache;
    await using _resolver = resolver;
    const options = { rateBytesPerSecond: 0, signal: SIGNAL, mayEvict: false };
    const dependencies = { clock: bench.clock, cache, resolver };
    const result = await fillLayers(dependencies, layers, options);
    assert.equal(result.isComplete, false);
    assert.equal(result.doneBytes, 16 * MIB);
    assert.equal(cache.usage().counts.evictedBlocks, 0);
    const evicting = fillLayers(dependencies, layers, { ...options, mayEvict: true });
    await assert.rejects(evicting, (error) => errorCode(error) === "resource-exhausted");
  });

  it("evicts others' blocks when it may", async () => {
    const samples = [evenLayer(5, 12, MIB), evenLayer(6, 12, MIB)];
    const { bench, cache, resolver, layers } = await openFillBench(16 * MIB, samples);
    await using _cache = cache;
    await using _resolver = resolver;
    const options = { rateBytesPerSecond: 0, signal: SIGNAL, mayEvict: true };
    const dependencies = { clock: bench.clock, cache, resolver };
    for (const layer of layers) {
      const result = await fillLayers(dependencies, [layer], options);
      assert.equal(result.isComplete, true);
      await bench.clock.advance(10_000);
    }
    assert.equal(layers[1]?.usage().blocks, 12);
    assert.ok((layers[0]?.usage().blocks ?? 0) <= 4);
  });

  it("ends when aborted", async () => {
    const samples = [evenLayer(7, 32, MIB)];
    const { bench, cache, resolver, layers } = await openFillBench(100 * MIB, samples);
    await using _cache = cache;
    await using _resolver = resolver;
    const leave = new AbortController();
    const options = { rateBytesPerSecond: MIB, signal: leave.signal, mayEvict: false };
    const fill = watch(fillLayers({ clock: bench.clock, cache, resolver }, layers, options));
    await bench.clock.advance(100);
    leave.abort();
    await bench.clock.advance(1);
    assert.equal(fill.state, "failed");
    assert.equal(errorCode(fill.error), "canceled");
  });
});
