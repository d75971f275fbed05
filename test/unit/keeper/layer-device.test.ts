/** A data device against a random history of fills, drops and replacements: never a zero. */
import assert from "node:assert/strict";
import { mkdtemp, open, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { silentLogger } from "../../../src/base/log.ts";
import { RangeSet } from "../../../src/base/range-set.ts";
import type { ByteRange } from "../../../src/base/range-set.ts";
import { FetchQueue } from "../../../src/keeper/fetch-queue.ts";
import { LayerDevice } from "../../../src/keeper/layer-device.ts";
import { TouchedLog } from "../../../src/keeper/touched-log.ts";
import { FakeClock } from "../../support/block/fake-clock.ts";

const LAYER = "c".repeat(64);
const TAR_BYTES = 10_000;
const SIZE = 10_240;
const BLOCK = 1000;

function byteAt(offset: number): number {
  return (offset % 251) + 1;
}

function expected(offset: number, length: number): Buffer {
  return Buffer.from(
    Array.from({ length }, (_none, index) =>
      offset + index < TAR_BYTES ? byteAt(offset + index) : 0,
    ),
  );
}

describe("LayerDevice", () => {
  let folder: string;
  let decodedPath: string;
  let queue: FetchQueue;
  let device: LayerDevice;
  let touched: TouchedLog;
  let truth: RangeSet;
  let onFetch: (range: ByteRange) => Promise<object>;
  const counters = { reads: 0, readsPresent: 0, readsMissed: 0, bytes: 0 };

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-d-"));
    decodedPath = join(folder, "decoded");
    await writeFile(decodedPath, "");
    await truncate(decodedPath, TAR_BYTES);
    truth = new RangeSet();
    touched = new TouchedLog();
    queue = new FetchQueue({ clock: new FakeClock(), log: silentLogger });
    queue.attach({
      isClosed: false,
      call: async (_method, request) => onFetch(request as ByteRange),
    });
    onFetch = async (range) => ({ present: [await fill(range)], data: new Uint8Array(0) });
    const service = { size: SIZE, tarBytes: TAR_BYTES, decodedPath, present: [], readWaitMs: 1000 };
    const log = silentLogger;
    device = new LayerDevice(service, { layer: LAYER, queue, touched, counters, log });
    await device.serve(service);
  });

  afterEach(async () => {
    await device[Symbol.asyncDispose]();
    await rm(folder, { recursive: true, force: true });
  });

  async function write(range: ByteRange, data: Buffer): Promise<void> {
    const file = await open(decodedPath, "r+");
    await file.write(data, 0, data.length, range.start);
    await file.close();
  }

  async function fill(range: ByteRange): Promise<ByteRange> {
    const start = range.start - (range.start % BLOCK);
    const block = { start, end: Math.min(Math.ceil(range.end / BLOCK) * BLOCK, TAR_BYTES) };
    await write(block, expected(block.start, block.end - block.start));
    truth.add(block);
    return block;
  }

  async function evict(range: ByteRange): Promise<void> {
    truth.remove(range);
    await device.drop([range]);
    if (truth.missing(range).length === 1)
      await write(range, Buffer.alloc(range.end - range.start));
  }

  async function check(offset: number, length: number): Promise<void> {
    const buffer = Buffer.alloc(length, 0xff);
    const bytes = await device.read(buffer, offset);
    assert.equal(bytes, Math.max(Math.min(length, SIZE - offset), 0));
    const isRight = buffer.subarray(0, bytes).equals(expected(offset, bytes));
    assert.ok(isRight, `${bytes} bytes at ${offset}`);
  }

  it("serves parts that are present, missing, and behind the tar in one read", async () => {
    await fill({ start: 4000, end: 5000 });
    device.addPresent([{ start: 4000, end: 5000 }]);
    await check(3500, 2000);
    await check(9500, 2000);
    await check(SIZE, 10);
    await check(TAR_BYTES + 1, 50);
    assert.deepEqual(touched.take(), [{ layer: LAYER, ranges: [{ start: 0, end: 262_144 }] }]);
  });

  it("hands through bytes that are not kept, asking for them each time", async () => {
    let asked = 0;
    onFetch = (range) => {
      asked += 1;
      const data = expected(range.start, range.end - range.start);
      return Promise.resolve({ present: [], data });
    };
    await check(100, 300);
    await check(100, 300);
    assert.equal(asked, 2);
  });

  it("does not believe a decoded file that is shorter than what is present", async () => {
    await fill({ start: 0, end: 2000 });
    await truncate(decodedPath, 2000);
    device.addPresent([{ start: 0, end: TAR_BYTES }]);
    await check(1500, 1000);
  });

  it("gives up on an image service that says present and drops, again and again", async () => {
    onFetch = () => Promise.resolve({ present: [], data: new Uint8Array(0) });
    await assert.rejects(device.read(Buffer.alloc(10), 0), { code: "data-loss" });
  });

  it("refuses to become another layer", async () => {
    const service = { size: 512, tarBytes: 500, decodedPath, present: [], readWaitMs: 1 };
    await assert.rejects(device.serve(service), { code: "invalid-argument" });
  });

  it("answers a drop only when the reads under way in its range have ended", async () => {
    await fill({ start: 0, end: TAR_BYTES });
    device.addPresent([{ start: 0, end: TAR_BYTES }]);
    const order: string[] = [];
    const drop = async (name: string, range: ByteRange): Promise<void> => {
      await device.drop([range]);
      order.push(name);
    };
    const reading = check(2000, 1000); // is with the kernel from here on
    const drops = [
      drop("overlapping", { start: 2500, end: 9000 }),
      drop("elsewhere", { start: 0, end: 2000 }),
    ];
    for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
    assert.deepEqual(order, ["elsewhere"]);
    await Promise.all([reading, ...drops]);
    assert.deepEqual(order, ["elsewhere", "overlapping"]);
  });

  it("forgets at once what a new image service does not name", async () => {
    await fill({ start: 0, end: TAR_BYTES });
    device.addPresent([{ start: 0, end: TAR_BYTES }]);
    await rm(decodedPath);
    await writeFile(decodedPath, Buffer.alloc(TAR_BYTES));
    truth = new RangeSet();
    const service = { size: SIZE, tarBytes: TAR_BYTES, decodedPath, present: [], readWaitMs: 1000 };
    await Promise.all([device.serve(service), check(0, 4000)]);
    await check(0, SIZE);
  });

  it("fails reads, shows no zeros, when its file cannot be opened any more", async () => {
    const service = {
      ...{ size: SIZE, tarBytes: TAR_BYTES, present: [{ start: 0, end: 1000 }] },
      ...{ decodedPath: join(folder, "none"), readWaitMs: 1000 },
    };
    await assert.rejects(device.serve(service), /cannot open its decoded file/);
    await assert.rejects(device.read(Buffer.alloc(10), 0));
  });

  it("never shows a hole in any interleaving of reads, evictions and takeovers", async () => {
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ kind: fc.constant("read"), at: fc.nat(SIZE) }) },
      { weight: 3, arbitrary: fc.record({ kind: fc.constant("evict"), at: fc.nat(9) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant("serve"), at: fc.nat(9) }) },
    );
    const run = async (steps: readonly { kind: string; at: number }[]): Promise<void> => {
      // The cache: a block is filled or punched, never both at once.
      let turn: Promise<unknown> = Promise.resolve();
      const exclusive = async <T>(work: () => Promise<T>): Promise<T> => {
        const done = turn.then(work);
        turn = done.catch(() => undefined);
        return done;
      };
      onFetch = async (range) =>
        exclusive(async () => ({ present: [await fill(range)], data: new Uint8Array(0) }));
      await Promise.all(
        steps.map(async ({ kind, at }) => {
          if (kind === "read") await check(at, 3000);
          else if (kind === "serve") {
            const present = [...truth];
            const service = { size: SIZE, tarBytes: TAR_BYTES, decodedPath, present };
            await device.serve({ ...service, readWaitMs: 1000 });
          } else {
            const range = { start: at * BLOCK, end: (at + 1) * BLOCK };
            await exclusive(async () => evict(range));
          }
        }),
      );
    };
    await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 30 }), run), { numRuns: 40 });
  });
});
