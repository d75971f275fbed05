/** Telling sequential readers from random ones. */
import assert from "node:assert/strict";
import { ReadAhead } from "../../../src/block/read-ahead.ts";
import type { AheadBlocks } from "../../../src/block/read-ahead.ts";
import { FakeSource } from "../../support/block/fake-source.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { openBench } from "../../support/block/resolver.ts";
import { evenLayer } from "../../support/block/sample-layer.ts";

const BLOCK = 100;
const OPTIONS = { firstBytes: BLOCK, maxBytes: 8 * BLOCK, stepsMin: 2 };
const { table } = evenLayer(70, 64, BLOCK);

function read(ahead: ReadAhead, start: number, end: number): AheadBlocks | undefined {
  return ahead.onRead(table, { start, end }, table.span({ start, end }));
}

/** One read across each block's end, as the first touches of a sequential reader look. */
function readOn(ahead: ReadAhead, from: number, to: number): (AheadBlocks | undefined)[] {
  const answers: (AheadBlocks | undefined)[] = [];
  for (let block = from; block <= to; block += 1) {
    answers.push(read(ahead, block * BLOCK - 10, block * BLOCK + 10));
  }
  return answers;
}

describe("ReadAhead", () => {
  it("starts after two steps, doubles, and never exceeds its window", () => {
    const ahead = new ReadAhead(OPTIONS);
    assert.equal(read(ahead, 0, 10), undefined);
    const answers = readOn(ahead, 1, 40);
    assert.equal(answers[0], undefined);
    assert.deepEqual(answers[1], { first: 3, last: 3 });
    const windows = answers.flatMap((answer, at) =>
      answer === undefined ? [] : [answer.last - (at + 1)],
    );
    assert.deepEqual(windows.slice(0, 4), [1, 2, 4, 8]);
    assert.ok(windows.every((window) => window <= 8));
  });

  it("asks for every block once, ahead of the reader", () => {
    const ahead = new ReadAhead(OPTIONS);
    read(ahead, 0, 10);
    const asked: number[] = [];
    for (const answer of readOn(ahead, 1, 63)) {
      if (answer === undefined) continue;
      for (let block = answer.first; block <= answer.last; block += 1) asked.push(block);
    }
    assert.deepEqual(asked, [...Array.from({ length: 61 }, (_, at) => at + 3)]);
  });

  it("fetches nothing ahead of random reads", () => {
    const ahead = new ReadAhead(OPTIONS);
    for (const block of [5, 40, 6, 41, 12, 13, 50, 3]) {
      assert.equal(read(ahead, block * BLOCK + 30, block * BLOCK + 40), undefined);
    }
  });

  it("follows two readers that alternate", () => {
    const ahead = new ReadAhead(OPTIONS);
    read(ahead, 0, 10);
    read(ahead, 30 * BLOCK, 30 * BLOCK + 10);
    const answers: AheadBlocks[] = [];
    for (let step = 1; step <= 3; step += 1) {
      for (const block of [step, 30 + step]) {
        const answer = read(ahead, block * BLOCK - 10, block * BLOCK + 10);
        if (answer !== undefined) answers.push(answer);
      }
    }
    assert.ok(answers.some(({ first }) => first < 30));
    assert.ok(answers.some(({ first }) => first > 30));
  });

  it("goes on where the reader leaves what was fetched ahead", () => {
    const ahead = new ReadAhead(OPTIONS);
    read(ahead, 0, 10);
    readOn(ahead, 1, 2);
    assert.deepEqual(read(ahead, 3 * BLOCK + 50, 4 * BLOCK + 10), { first: 5, last: 6 });
    assert.deepEqual(read(ahead, 7 * BLOCK - 10, 7 * BLOCK + 10), { first: 8, last: 11 });
    assert.equal(read(ahead, 30 * BLOCK, 30 * BLOCK + 10), undefined);
  });

  it("is off with a window of 0", () => {
    const ahead = new ReadAhead({ ...OPTIONS, maxBytes: 0 });
    read(ahead, 0, 10);
    assert.ok(readOn(ahead, 1, 20).every((answer) => answer === undefined));
  });
});

describe("BlockResolver reading ahead", () => {
  it("fetches ahead of a sequential reader without announcing what it fetched", async () => {
    const readAhead = OPTIONS;
    await using bench = openBench({ readAhead });
    const sample = evenLayer(71, 20, BLOCK);
    const source = new FakeSource().add(sample);
    const stored = bench.add(sample, [source]);
    const reader = { priority: 0, signal: new AbortController().signal } as const;
    const ends: number[] = [];
    for (let block = 0; block < 5; block += 1) {
      const range = { start: Math.max(0, block * BLOCK - 10), end: block * BLOCK + 10 };
      const result = await bench.resolver.ensure(sample.id, range, reader);
      assert.ok("present" in result);
      ends.push(result.present[0]?.end ?? 0);
      await settle();
    }
    assert.deepEqual(ends, [100, 200, 300, 400, 500]);
    assert.ok(stored.blocks.size > 6);
    assert.ok(source.requests.some(({ priority }) => priority === 1));
  });

  it("stops fetching ahead while the cache takes nothing", async () => {
    await using bench = openBench({ readAhead: OPTIONS });
    const sample = evenLayer(72, 20, BLOCK);
    const source = new FakeSource().add(sample);
    bench.add(sample, [source]).hasRoom = () => false;
    const reader = { priority: 0, signal: new AbortController().signal } as const;
    for (let block = 0; block < 8; block += 1) {
      const range = { start: Math.max(0, block * BLOCK - 10), end: block * BLOCK + 10 };
      await bench.resolver.ensure(sample.id, range, reader);
      await settle();
    }
    assert.ok(source.requests.every(({ priority }) => priority === 0));
  });
});
