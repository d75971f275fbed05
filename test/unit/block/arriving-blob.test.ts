/** One block's bytes while they arrive, for readers at different places. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import { ArrivingBlob } from "../../../src/block/arriving-blob.ts";
import { settle } from "../../support/block/fake-clock.ts";
import { flip, sampleBytes } from "../../support/block/sample-layer.ts";
import { TapReader } from "../../support/block/tap-reader.ts";

const LENGTH = 1000;
const BYTES = sampleBytes(1, LENGTH);

function open(
  blob: ArrivingBlob,
  signal = new AbortController().signal,
): { reader: TapReader; events: string[] } {
  const events: string[] = [];
  const tap = blob.tap(signal, {
    onVerdict: () => events.push("verdict"),
    onEnd: () => events.push("end"),
  });
  return { reader: new TapReader(tap), events };
}

describe("ArrivingBlob", () => {
  it("gives what came so far, then what comes, then the verdict", async () => {
    const blob = new ArrivingBlob(LENGTH);
    blob.write(0, BYTES.subarray(0, 400));
    const { reader, events } = open(blob);
    await settle();
    assert.deepEqual(reader.bytes, BYTES.subarray(0, 400));
    blob.write(400, BYTES.subarray(400));
    await settle();
    assert.equal(reader.end, "whole");
    assert.equal(reader.verdict, "open");
    assert.deepEqual(events, []);
    blob.verified(blob.bytes);
    await settle();
    assert.equal(reader.verdict, "right");
    assert.deepEqual(events, ["verdict", "end"]);
    assert.deepEqual(reader.bytes, BYTES);
    assert.equal(blob.taps, 0);
  });

  it("keeps one buffer for all readers, and none before the first byte", async () => {
    const blob = new ArrivingBlob(LENGTH);
    const taps = [0, 1, 2].map(() =>
      blob.tap(new AbortController().signal, {
        onVerdict: () => undefined,
        onEnd: () => undefined,
      }),
    );
    blob.write(0, BYTES);
    blob.verified(blob.bytes);
    for (const { pieces } of taps) {
      for await (const piece of pieces) assert.equal(piece.buffer, blob.bytes.buffer);
    }
    assert.equal(blob.taps, 0);
  });

  it("hides an attempt that broke from those who were given right bytes of it", async () => {
    const blob = new ArrivingBlob(LENGTH);
    blob.write(0, BYTES.subarray(0, 600));
    const { reader } = open(blob);
    await settle();
    blob.restart();
    blob.write(0, BYTES.subarray(0, 500));
    await settle();
    assert.equal(reader.bytes.length, 600, "nothing twice");
    blob.write(500, BYTES.subarray(500));
    blob.verified(blob.bytes);
    await reader.done;
    assert.deepEqual(reader.bytes, BYTES);
    assert.equal(reader.verdict, "right");
  });

  it("ends those who were given wrong bytes when the right ones come, and no others", async () => {
    const blob = new ArrivingBlob(LENGTH);
    const lie = Buffer.from(BYTES);
    flip(lie, 300);
    const late = blob.tap(new AbortController().signal, {
      onVerdict: () => undefined,
      onEnd: () => undefined,
    });
    blob.write(0, lie.subarray(0, 200));
    const first = late.pieces[Symbol.asyncIterator]();
    const step: IteratorResult<Uint8Array> = await first.next();
    assert.equal((step.value as Uint8Array).length, 200);
    const { reader, events } = open(blob);
    blob.write(200, lie.subarray(200));
    await settle();
    assert.equal(reader.end, "whole");
    blob.restart();
    blob.write(0, BYTES);
    blob.verified(blob.bytes);
    await settle();
    assert.equal(reader.verdict, "data-loss");
    assert.deepEqual(events, ["verdict", "end"]);
    const rest: IteratorResult<Uint8Array> = await first.next();
    assert.deepEqual(Buffer.from(rest.value as Uint8Array), BYTES.subarray(200));
    await late.verdict;
  });

  it("gives nothing more of an attempt that has failed", async () => {
    const blob = new ArrivingBlob(LENGTH);
    blob.write(0, BYTES.subarray(0, 600));
    blob.restart();
    const { reader } = open(blob);
    await settle();
    assert.equal(reader.bytes.length, 0);
    blob.fail(new DaemonError("unavailable", "no source"));
    await reader.done;
    assert.equal(reader.end, "unavailable");
    assert.equal(reader.verdict, "unavailable");
    assert.equal(open(blob).events.length, 2, "who comes later is told at once");
  });

  it("lets a reader go that is aborted, that leaves its loop, or that never reads", async () => {
    const blob = new ArrivingBlob(LENGTH);
    blob.write(0, BYTES.subarray(0, 600));
    const controller = new AbortController();
    const aborted = open(blob, controller.signal);
    const idle: string[] = [];
    blob.tap(controller.signal, {
      onVerdict: () => idle.push("verdict"),
      onEnd: () => idle.push("end"),
    });
    const left: string[] = [];
    const tap = blob.tap(new AbortController().signal, {
      onVerdict: () => left.push("verdict"),
      onEnd: () => left.push("end"),
    });
    for await (const piece of tap.pieces) {
      assert.equal(piece.length, 600);
      break;
    }
    await assert.rejects(tap.verdict, { code: "canceled" });
    await settle();
    controller.abort(new DaemonError("canceled", "the child is gone"));
    await aborted.reader.done;
    assert.equal(aborted.reader.end, "canceled");
    for (const events of [aborted.events, idle, left]) {
      assert.deepEqual(events, ["verdict", "end"]);
    }
    assert.equal(blob.taps, 0);
  });

  it("takes others' verified bytes in the place of those that were arriving", async () => {
    const blob = new ArrivingBlob(LENGTH);
    blob.write(0, BYTES.subarray(0, 600));
    const { reader } = open(blob);
    await settle();
    blob.verified(Buffer.from(BYTES));
    await reader.done;
    assert.deepEqual(reader.bytes, BYTES);
    assert.equal(reader.verdict, "right");
  });

  it("never calls bytes right that are not the block's, whatever breaks when", async () => {
    const attempt = fc.record({
      length: fc.integer({ min: 0, max: LENGTH }),
      wrongAt: fc.option(fc.integer({ min: 0, max: LENGTH - 1 }), { nil: undefined }),
      step: fc.integer({ min: 1, max: 400 }),
      joins: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(attempt, { maxLength: 5 }), async (attempts) => {
        const blob = new ArrivingBlob(LENGTH);
        const readers = [open(blob).reader];
        for (const { length, wrongAt, step, joins } of attempts) {
          const bytes = Buffer.from(BYTES);
          if (wrongAt !== undefined) flip(bytes, wrongAt);
          for (let at = 0; at < length; at += step) {
            blob.write(at, bytes.subarray(at, Math.min(length, at + step)));
            for (let turn = 0; turn < 3; turn += 1) await Promise.resolve();
          }
          if (joins) readers.push(open(blob).reader);
          blob.restart();
        }
        blob.write(0, BYTES);
        blob.verified(blob.bytes);
        await Promise.all(readers.map(({ done }) => done));
        await settle();
        for (const reader of readers) {
          if (reader.verdict === "right") assert.deepEqual(reader.bytes, BYTES);
          else assert.equal(reader.verdict, "data-loss");
        }
      }),
      { seed: 3, numRuns: 60 },
    );
  });
});
