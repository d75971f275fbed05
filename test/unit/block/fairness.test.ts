/** Who gets the requests: layers, origins and priorities side by side. */
import assert from "node:assert/strict";
import { settle } from "../../support/block/fake-clock.ts";
import { FakeSource, gate } from "../../support/block/fake-source.ts";
import { openBench, watch } from "../../support/block/resolver.ts";
import type { Bench } from "../../support/block/resolver.ts";
import { sampleLayer } from "../../support/block/sample-layer.ts";
import type { SampleLayer } from "../../support/block/sample-layer.ts";

const READER = { priority: 0, signal: new AbortController().signal } as const;
const FILL = { priority: 3, signal: new AbortController().signal } as const;

/** Blocks too far apart in the blob to be merged. */
function scattered(seed: number, count: number): SampleLayer {
  return sampleLayer(
    seed,
    Array.from({ length: count }, () => ({ tarLength: 100, gap: 70_000 })),
  );
}

function readBlock(bench: Bench, sample: SampleLayer, index: number): ReturnType<typeof watch> {
  const start = index * 100;
  return watch(bench.resolver.ensure(sample.id, { start, end: start + 1 }, READER));
}

describe("BlockResolver under contention", () => {
  it("lets another image through while thirty readers of one are stalled", async () => {
    await using bench = openBench();
    const stalled = scattered(40, 30);
    const other = scattered(41, 3);
    const source = new FakeSource().add(stalled, other);
    source.onRequest = ({ run }) => (run.layerId === stalled.id ? gate().wait : undefined);
    bench.add(stalled, [source]);
    bench.add(other, [source]);
    const waiting = Array.from({ length: 30 }, (_, index) => readBlock(bench, stalled, index));
    await settle();
    const reader = readBlock(bench, other, 1);
    await settle();
    assert.equal(reader.state, "done");
    assert.ok(waiting.every(({ state }) => state === "waiting"));
    assert.equal(source.requests.filter(({ run }) => run.layerId === stalled.id).length, 4);
  });

  it("parks silent requests so that even twenty stalled layers leave slots", async () => {
    await using bench = openBench();
    const stalled = Array.from({ length: 20 }, (_, at) => scattered(100 + at, 4));
    const other = scattered(42, 3);
    const source = new FakeSource().add(...stalled, other);
    source.onRequest = ({ run }) => (run.layerId === other.id ? undefined : gate().wait);
    for (const sample of stalled) {
      bench.add(sample, [source]);
      for (let index = 0; index < 4; index += 1) readBlock(bench, sample, index);
    }
    await settle();
    assert.equal(bench.resolver.counts.active, 16);
    bench.add(other, [source]);
    const reader = readBlock(bench, other, 0);
    await bench.clock.advance(600);
    assert.equal(reader.state, "done");
    assert.ok(bench.resolver.counts.parked >= 16);
  });

  it("does not let a stalled origin take what another origin's layers need", async () => {
    await using bench = openBench();
    const one = scattered(43, 4);
    const two = scattered(44, 4);
    const stuck = new FakeSource("registry", "https://one.example").add(one);
    stuck.onRequest = () => gate().wait;
    const fine = new FakeSource("registry", "https://two.example").add(two);
    bench.add(one, [stuck]);
    bench.add(two, [fine]);
    for (let index = 0; index < 4; index += 1) readBlock(bench, one, index);
    const reader = readBlock(bench, two, 0);
    await settle();
    assert.equal(reader.state, "done");
  });

  it("serves readers first, then the layer with the fewest requests", async () => {
    await using bench = openBench();
    const samples = [scattered(45, 8), scattered(46, 8), scattered(47, 8)] as const;
    const source = new FakeSource().add(...samples);
    const hold = gate();
    source.onRequest = () => hold.wait;
    for (const sample of samples) bench.add(sample, [source]);
    const [greedy, modest, background] = samples;
    const fill = bench.resolver.fill(background.id, { first: 0, last: 7 }, FILL);
    for (let index = 0; index < 8; index += 1) readBlock(bench, greedy, index);
    readBlock(bench, modest, 0);
    await settle();
    const order = source.requests.map(({ run }) => run.layerId);
    assert.deepEqual(order.slice(0, 2), [greedy.id, modest.id]);
    assert.equal(order.filter((id) => id === background.id).length, 0, "fill waits for readers");
    hold.open();
    await fill;
  });

  it("resumes a parked request when bytes flow again", async () => {
    await using bench = openBench();
    const sample = scattered(48, 1);
    const source = new FakeSource().add(sample);
    const hold = gate();
    source.onPiece = () => hold.wait;
    bench.add(sample, [source]);
    const reader = readBlock(bench, sample, 0);
    await bench.clock.advance(1000);
    assert.deepEqual([bench.resolver.counts.active, bench.resolver.counts.parked], [0, 1]);
    hold.open();
    await settle();
    assert.equal(reader.state, "done");
    assert.deepEqual([bench.resolver.counts.active, bench.resolver.counts.parked], [0, 0]);
    assert.equal(source.requests.length, 1);
  });

  it("refuses more blocks ahead than its bound but still takes readers", async () => {
    await using bench = openBench();
    const sample = sampleLayer(
      49,
      Array.from({ length: 5000 }, () => ({ tarLength: 8 })),
    );
    const source = new FakeSource().add(sample);
    source.onRequest = () => gate().wait;
    bench.add(sample, [source]);
    const first = [0, 1024, 2048, 3072].map((from) =>
      watch(bench.resolver.fill(sample.id, { first: from, last: from + 1023 }, FILL)),
    );
    const second = bench.resolver.fill(sample.id, { first: 4096, last: 4999 }, FILL);
    await assert.rejects(second, /over 4096 blocks/);
    const reader = watch(bench.resolver.ensure(sample.id, { start: 39_000, end: 39_001 }, READER));
    await settle();
    assert.ok(first.every(({ state }) => state === "waiting"));
    assert.equal(reader.state, "waiting");
    assert.ok(source.requests.some(({ priority }) => priority === 0));
  });
});
