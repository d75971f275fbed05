/** Sources that are not to be asked now, that know soon, that pass, and that say they are alive. */
import assert from "node:assert/strict";
import type { DaemonError } from "../../../src/base/errors.ts";
import { passError } from "../../../src/block/index.ts";
import type { SourceFetchOptions, SourceReadiness } from "../../../src/block/index.ts";
import type { BlobRun } from "../../../src/block/index.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { FakeSource, gate } from "../../support/block/fake-source.ts";
import { openBench, watch } from "../../support/block/resolver.ts";
import { evenLayer } from "../../support/block/sample-layer.ts";

const READER = { priority: 0, signal: new AbortController().signal } as const;

/** A parent that the test makes ready, and that can say that it is alive. */
class ParentSource extends FakeSource {
  state: SourceReadiness = "ready";
  asked = 0;
  readonly alive: (() => void)[] = [];

  constructor(name = "parent") {
    super(name, `https://${name}.example`);
  }

  readiness(): SourceReadiness {
    this.asked += 1;
    return this.state;
  }

  override async fetch(
    run: BlobRun,
    options: SourceFetchOptions,
  ): Promise<AsyncIterable<Uint8Array>> {
    if (options.onAlive !== undefined) this.alive.push(options.onAlive);
    return super.fetch(run, options);
  }
}

const block = (index: number): { start: number; end: number } => ({
  start: index * 1000,
  end: index * 1000 + 1,
});

describe("BlockResolver and sources that are not ready", () => {
  it("skips one without blame and asks the next", async () => {
    await using bench = openBench();
    const sample = evenLayer(1, 2, 1000);
    const parent = new ParentSource().add(sample);
    parent.state = "skip";
    const registry = new FakeSource().add(sample);
    bench.add(sample, [parent, registry]);
    await bench.resolver.ensure(sample.id, block(0), READER);
    assert.deepEqual([parent.requests.length, registry.requests.length], [0, 1]);
    parent.state = "ready";
    await bench.resolver.ensure(sample.id, block(1), READER);
    assert.deepEqual([parent.requests.length, registry.requests.length], [1, 1]);
    assert.deepEqual(Object.keys(bench.resolver.stats().sources).toSorted(), [
      "parent",
      "registry",
    ]);
    assert.deepEqual(bench.events, []);
  });

  it("waits for one that will know soon, and no longer, before it asks the next", async () => {
    await using bench = openBench();
    const sample = evenLayer(2, 2, 1000);
    const parent = new ParentSource().add(sample);
    parent.state = { untilMs: bench.clock.nowMs() + 200 };
    const registry = new FakeSource().add(sample);
    bench.add(sample, [parent, registry]);
    const reader = watch(bench.resolver.ensure(sample.id, block(0), READER));
    await bench.clock.advance(199);
    assert.equal(registry.requests.length, 0);
    assert.ok(parent.asked < 5, `asked ${parent.asked} times`);
    await bench.clock.advance(2);
    assert.equal(registry.requests.length, 1);
    assert.equal(reader.state, "done");
  });

  it("goes on at once when the source announces itself", async () => {
    await using bench = openBench();
    const sample = evenLayer(3, 1, 1000);
    const parent = new ParentSource().add(sample);
    parent.state = { untilMs: bench.clock.nowMs() + 10_000 };
    const registry = new FakeSource().add(sample);
    bench.add(sample, [parent, registry]);
    const reader = watch(bench.resolver.ensure(sample.id, block(0), READER));
    await settle();
    parent.state = "ready";
    bench.resolver.wake("parent");
    await settle();
    assert.equal(reader.state, "done");
    assert.deepEqual([parent.requests.length, registry.requests.length], [1, 0]);
  });

  it("looks again now and then where no source is ready, and says so to who gives up", async () => {
    await using bench = openBench();
    const sample = evenLayer(4, 1, 1000);
    const parent = new ParentSource().add(sample);
    parent.state = "skip";
    bench.add(sample, [parent]);
    const reader = watch(
      bench.resolver.ensure(sample.id, block(0), { ...READER, limitMs: 60_000 }),
    );
    await bench.clock.advance(59_000);
    assert.ok(parent.asked >= 100 && parent.asked <= 130, `asked ${parent.asked} times`);
    await bench.clock.advance(2000);
    assert.equal(reader.state, "failed");
    assert.match(String((reader.error as DaemonError).cause), /parent is not to be asked now/);
  });

  it("takes a source that passes on a block at its word, for that block alone", async () => {
    await using bench = openBench();
    const sample = evenLayer(5, 4, 1000);
    const parent = new ParentSource().add(sample);
    parent.onRequest = ({ run }) => {
      if (run.firstBlock === 0) throw passError("nobody up the tree has it");
    };
    const registry = new FakeSource().add(sample);
    bench.add(sample, [parent, registry]);
    await bench.resolver.ensure(sample.id, block(0), READER);
    await bench.resolver.ensure(sample.id, block(2), READER);
    assert.deepEqual(parent.spans, [
      [0, 0],
      [2, 2],
    ]);
    assert.deepEqual(registry.spans, [[0, 0]]);
    const { parent: counts } = bench.resolver.stats().sources;
    assert.deepEqual([counts?.passes, counts?.failures, counts?.blocks], [1, 0, 1]);
    assert.deepEqual(bench.events, []);
  });

  it("asks a source that passed again after a while, or when it announces itself", async () => {
    await using bench = openBench();
    const sample = evenLayer(6, 2, 1000);
    const parent = new ParentSource().add(sample);
    const has = new Set<number>();
    parent.onRequest = ({ run }) => {
      if (!has.has(run.firstBlock)) throw passError("not here");
    };
    bench.add(sample, [parent]);
    const first = watch(bench.resolver.ensure(sample.id, block(0), READER));
    await bench.clock.advance(10);
    has.add(0);
    await bench.clock.advance(480);
    assert.deepEqual([first.state, parent.requests.length], ["waiting", 1]);
    await bench.clock.advance(20);
    assert.equal(first.state, "done");
    const second = watch(bench.resolver.ensure(sample.id, block(1), READER));
    await settle();
    has.add(1);
    bench.resolver.wake("parent");
    await settle();
    assert.equal(second.state, "done");
  });

  it("lets a list to prefetch go past what no source has now, and a reader wait for it", async () => {
    await using bench = openBench();
    const sample = evenLayer(11, 200, 100);
    const parent = new ParentSource().add(sample);
    parent.onRequest = ({ run }) => {
      if (run.firstBlock < 150) throw passError("nobody up the tree has it");
    };
    const registry = new ParentSource("registry").add(sample);
    registry.state = "skip";
    bench.add(sample, [parent, registry]);
    const reader = watch(bench.resolver.ensure(sample.id, { start: 100, end: 101 }, READER));
    const list = Array.from({ length: 100 }, (_, at) => at * 2);
    const { fetchedBlocks, failedBlocks } = await bench.resolver.prefetch(sample.id, list, READER);
    assert.deepEqual([fetchedBlocks, failedBlocks], [25, 75]);
    assert.equal(reader.state, "waiting");
    assert.ok(!bench.events.includes("block-lost"));
    registry.state = "ready";
    bench.resolver.wake("registry");
    await settle();
    assert.equal(reader.state, "done");
  });

  it("gives a run its blocks' own places", async () => {
    await using bench = openBench();
    const sample = evenLayer(7, 3, 1000);
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]);
    await bench.resolver.ensure(sample.id, { start: 1000, end: 3000 }, READER);
    assert.deepEqual(source.requests[0]?.run.blocks, [
      { index: 1, start: 1000, end: 2000 },
      { index: 2, start: 2000, end: 3000 },
    ]);
  });
});

describe("BlockResolver and a parent that itself waits", () => {
  it("does not give it up, nor ask another, while it says that it is alive", async () => {
    await using bench = openBench();
    const sample = evenLayer(8, 2, 1000);
    const parent = new ParentSource().add(sample);
    const held = gate();
    parent.onRequest = () => held.wait;
    const registry = new FakeSource().add(sample);
    bench.add(sample, [parent, registry]);
    const first = watch(bench.resolver.ensure(sample.id, block(0), READER));
    await settle();
    for (let elapsed = 0; elapsed < 20_000; elapsed += 50) {
      for (const alive of parent.alive) alive();
      await bench.clock.advance(50);
      if (elapsed !== 10_000) continue;
      // Its slot is lent to others, but it is not taken for silent: the next block goes there too.
      assert.equal(bench.resolver.counts.parked, 1);
      void bench.resolver.ensure(sample.id, block(1), READER);
    }
    assert.equal(first.state, "waiting");
    assert.deepEqual([parent.requests.length, registry.requests.length], [2, 0]);
    held.open();
    await settle();
    assert.equal(first.state, "done");
    assert.deepEqual(bench.events, []);
  });

  it("gives it up a while after its last sign of life", async () => {
    await using bench = openBench();
    const sample = evenLayer(9, 1, 1000);
    const parent = new ParentSource().add(sample);
    parent.onRequest = () => gate().wait;
    const registry = new FakeSource().add(sample);
    bench.add(sample, [parent, registry]);
    const reader = watch(bench.resolver.ensure(sample.id, block(0), READER));
    await settle();
    for (let elapsed = 0; elapsed < 5000; elapsed += 50) {
      parent.alive[0]?.();
      await bench.clock.advance(50);
    }
    await bench.clock.advance(2900);
    assert.equal(reader.state, "waiting");
    await bench.clock.advance(200);
    assert.equal(reader.state, "done");
    assert.equal(registry.requests.length, 1);
    assert.ok(bench.events.includes("source-failed"));
  });

  it("takes an empty piece for a sign of life, not for bytes", async () => {
    await using bench = openBench();
    const sample = evenLayer(12, 2, 1000);
    const parent = new ParentSource().add(sample);
    const end = gate();
    let isOver = false;
    parent.fetch = async ({ range }) => {
      await Promise.resolve();
      return (async function* pieces(): AsyncGenerator<Uint8Array> {
        while (!isOver) {
          yield new Uint8Array();
          const wait = bench.clock.sleep(50, READER);
          await Promise.race([end.wait, wait]);
        }
        yield sample.blob.subarray(range.start, range.end);
      })();
    };
    const registry = new FakeSource().add(sample);
    bench.add(sample, [parent, registry]);
    const reader = watch(bench.resolver.ensure(sample.id, block(0), READER));
    await bench.clock.advance(20_000);
    assert.equal(bench.resolver.counts.parked, 1, "its slot is lent");
    isOver = true;
    end.open();
    await settle();
    assert.equal(reader.state, "done");
    assert.equal(registry.requests.length, 0);
  });

  it("lets what the parent holds pass by what it awaits", async () => {
    await using bench = openBench();
    const sample = evenLayer(10, 40, 1000);
    const parent = new ParentSource().add(sample);
    parent.onRequest = ({ run }) => (run.firstBlock < 20 ? gate().wait : undefined);
    bench.add(sample, [parent]);
    for (let index = 0; index < 20; index += 2) {
      void bench.resolver.ensure(sample.id, block(index), READER).catch(() => undefined);
    }
    await settle();
    assert.equal(parent.requests.length, 4, "one image has so many requests");
    const held = watch(bench.resolver.ensure(sample.id, block(30), READER));
    for (let tick = 0; tick < 4; tick += 1) {
      for (const alive of parent.alive) alive();
      await bench.clock.advance(50);
    }
    assert.equal(held.state, "done");
    assert.equal(parent.requests.length, 11);
  });
});
