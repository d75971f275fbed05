/** The order in which blocks were first wanted, and fetching ahead in another's. */
import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import { AskedBlocks } from "../../../src/block/asked-blocks.ts";
import { FetchOrder } from "../../../src/block/fetch-order.ts";
import { ASKED_BLOCKS_MAX, FETCH_ORDER_BLOCKS_MAX } from "../../../src/block/limits.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { FakeSource, gate } from "../../support/block/fake-source.ts";
import { openBench, watch } from "../../support/block/resolver.ts";
import { evenLayer } from "../../support/block/sample-layer.ts";

const SIGNAL = { signal: new AbortController().signal };
const READER = { priority: 0, ...SIGNAL } as const;
const FILL = { priority: 3, ...SIGNAL } as const;

describe("FetchOrder", () => {
  it("names each block once, in parts that join, and tells of new ones", () => {
    const told: number[] = [];
    const order = new FetchOrder((index) => told.push(index));
    for (const index of [5, 2, 5, 9, 2]) order.add(index);
    assert.deepEqual(told, [5, 2, 9]);
    assert.deepEqual(order.since(0, 2), { blocks: [5, 2], next: 2 });
    assert.deepEqual(order.since(2), { blocks: [9], next: 3 });
    assert.deepEqual(order.since(3), { blocks: [], next: 3 });
    assert.deepEqual(order.since(99), { blocks: [], next: 3 });
    assert.deepEqual(order.since(-1).next, 3);
  });

  it("remembers the first of more than its bound", () => {
    const order = new FetchOrder();
    for (let index = 0; index < FETCH_ORDER_BLOCKS_MAX + 10; index += 1) order.add(index);
    assert.equal(order.length, FETCH_ORDER_BLOCKS_MAX);
    assert.equal(order.since(FETCH_ORDER_BLOCKS_MAX - 1).blocks[0], FETCH_ORDER_BLOCKS_MAX - 1);
  });
});

describe("AskedBlocks", () => {
  it("tells two children from one that asks twice, and forgets the oldest of too many", () => {
    const asked = new AskedBlocks();
    assert.deepEqual(asked.note(1, "a"), { children: 1, isNew: true });
    assert.deepEqual(asked.note(1, "a"), { children: 1, isNew: false });
    assert.deepEqual(asked.note(1, "b"), { children: 2, isNew: true });
    assert.deepEqual(asked.note(1, "c"), { children: 2, isNew: false });
    assert.deepEqual(asked.note(2, undefined), { children: 1, isNew: true });
    assert.deepEqual(asked.note(2, undefined), { children: 2, isNew: true });
    for (let index = 3; index < ASKED_BLOCKS_MAX + 3; index += 1) asked.note(index, "a");
    assert.deepEqual(asked.note(1, "c"), { children: 1, isNew: true });
  });
});

describe("BlockResolver.order", () => {
  it("has what readers and prefetch wanted, present or not, and nothing of a fill", async () => {
    await using bench = openBench();
    const sample = evenLayer(1, 10, 1000);
    const stored = bench.add(sample, [new FakeSource().add(sample)]);
    stored.blocks.set(4, sample.tar.subarray(4000, 5000));
    const told: [string, number][] = [];
    const stop = bench.resolver.onOrder((layerId, index) => told.push([layerId, index]));
    await bench.resolver.fill(sample.id, { first: 8, last: 9 }, FILL);
    await bench.resolver.ensure(sample.id, { start: 4000, end: 4001 }, READER);
    await bench.resolver.ensure(sample.id, { start: 1500, end: 2500 }, READER);
    await bench.resolver.ensure(sample.id, { start: 4000, end: 4001 }, READER);
    await bench.resolver.prefetch(sample.id, [7, 6], SIGNAL);
    await bench.resolver.openBlob(sample.id, 0, { ...READER, mayFetch: true });
    await bench.resolver.openBlob(sample.id, 3, { ...READER, priority: 2, mayFetch: true });
    const expected = [4, 1, 2, 7, 6, 0];
    assert.deepEqual(bench.resolver.order(sample.id).since(0).blocks, expected);
    assert.deepEqual(
      told,
      expected.map((index) => [sample.id, index]),
    );
    stop();
    await bench.resolver.ensure(sample.id, { start: 8000, end: 8001 }, READER);
    assert.equal(told.length, 6);
    assert.throws(() => bench.resolver.order("ff"), { code: "not-found" });
  });
});

describe("BlockResolver.prefetch", () => {
  it("fetches a list in its order, neighbours together, and not what is there", async () => {
    await using bench = openBench();
    const sample = evenLayer(2, 20, 1000);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    stored.blocks.set(11, sample.tar.subarray(11_000, 12_000));
    const result = await bench.resolver.prefetch(sample.id, [15, 10, 11, 16, 3, 15], SIGNAL);
    assert.deepEqual(result, {
      fetchedBlocks: 4,
      presentBlocks: 1,
      failedBlocks: 0,
      leftBlocks: 0,
    });
    assert.deepEqual(source.spans, [
      [15, 16],
      [10, 10],
      [3, 3],
    ]);
    assert.ok(source.requests.every(({ priority }) => priority === 2));
  });

  it("lets every reader go first, and is raised by one who wants the same block", async () => {
    await using bench = openBench({
      slots: { activeMax: [1, 1, 1, 1], parkedMax: 9, activeBytesMax: 1e9 },
    });
    const sample = evenLayer(3, 40, 1000);
    const source = new FakeSource().add(sample);
    const gates = Array.from({ length: 40 }, () => gate());
    source.onRequest = ({ run }) => gates[run.firstBlock]?.wait;
    bench.add(sample, [source]);
    const ahead = watch(bench.resolver.prefetch(sample.id, [0, 10, 20, 30], SIGNAL));
    await settle();
    const reader = watch(bench.resolver.ensure(sample.id, { start: 30_000, end: 30_001 }, READER));
    const other = watch(bench.resolver.ensure(sample.id, { start: 35_000, end: 35_001 }, READER));
    gates[0]?.open();
    await settle();
    assert.deepEqual(
      source.requests.map(({ run }) => run.firstBlock),
      [0, 30],
    );
    for (const each of gates) each.open();
    await settle();
    assert.deepEqual([reader.state, other.state, ahead.state], ["done", "done", "done"]);
    assert.deepEqual(
      source.requests.map(({ run }) => run.firstBlock),
      [0, 30, 35, 10, 20],
    );
  });

  it("queues a long list bit by bit, and ends at once with its signal", async () => {
    await using bench = openBench();
    const sample = evenLayer(4, 500, 100);
    const source = new FakeSource().add(sample);
    source.onRequest = () => gate().wait;
    bench.add(sample, [source]);
    const controller = new AbortController();
    const even = Array.from({ length: 250 }, (_, at) => at * 2);
    const ahead = watch(bench.resolver.prefetch(sample.id, even, controller));
    await settle();
    assert.equal(bench.resolver.counts.flights, 64);
    controller.abort(new DaemonError("canceled", "the container is gone"));
    await settle();
    assert.equal(ahead.state, "failed");
    assert.equal(bench.resolver.counts.flights, 0);
  });

  it("stops where nothing can be kept, and fails nobody for a block that fails", async () => {
    await using bench = openBench({ memoryBytesMax: 0 });
    const sample = evenLayer(5, 300, 100);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    stored.hasRoom = () => false;
    const all = Array.from({ length: 300 }, (_, at) => at);
    const full = await bench.resolver.prefetch(sample.id, all, SIGNAL);
    assert.ok(full.leftBlocks >= 200, `${full.leftBlocks} left`);
    stored.hasRoom = () => true;
    source.onRequest = () => {
      throw new DaemonError("not-found", "gone");
    };
    const failed = await bench.resolver.prefetch(sample.id, [0, 1], SIGNAL);
    assert.equal(failed.failedBlocks, 2);
  });

  it("refuses blocks that the layer has not, and lists without end", async () => {
    await using bench = openBench();
    const sample = evenLayer(6, 3, 100);
    bench.add(sample, []);
    for (const list of [[3], [-1], [0.5], [Number.NaN], new Array<number>(70_000).fill(0)]) {
      await assert.rejects(bench.resolver.prefetch(sample.id, list, SIGNAL), {
        code: "out-of-range",
      });
    }
  });
});

describe("BlockResolver.stats", () => {
  it("tells where reads found their blocks, by layer and in all", async () => {
    await using bench = openBench();
    const one = evenLayer(7, 3, 1000);
    const two = evenLayer(8, 3, 1000);
    const source = new FakeSource().add(one, two);
    const stored = bench.add(one, [source]);
    bench.add(two, [source]).hasRoom = () => false;
    stored.blocks.set(0, one.tar.subarray(0, 1000));
    await bench.resolver.ensure(one.id, { start: 0, end: 10 }, READER);
    await bench.resolver.ensure(one.id, { start: 500, end: 1500 }, READER);
    for (let time = 0; time < 2; time += 1) {
      await bench.resolver.ensure(two.id, { start: 0, end: 10 }, READER);
    }
    const { local } = bench.resolver.stats(one.id);
    assert.deepEqual(local.disk, { requests: 2, blocks: 2, bytes: 2000 });
    const all = bench.resolver.stats();
    assert.deepEqual(all.local.memory, { requests: 1, blocks: 1, bytes: 1000 });
    assert.deepEqual(all.local.disk, { requests: 2, blocks: 2, bytes: 2000 });
    assert.equal(all.sources["registry"]?.blobBytes, 2000);
    bench.resolver.removeLayer(one.id);
    assert.deepEqual(bench.resolver.stats(), all, "what was counted stays counted");
  });
});
