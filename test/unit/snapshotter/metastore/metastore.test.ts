/** The metastore on a disk that errs, over damage, and over many transactions. */
import assert from "node:assert/strict";
import { silentLogger } from "../../../../src/base/log.ts";
import { Metastore } from "../../../../src/snapshotter/metastore/metastore.ts";
import { CrashingDisk } from "../../../support/snapshotter/crashing-disk.ts";
import { FakeClock } from "../../../support/snapshotter/fake-clock.ts";
import { sampleRecord } from "../../../support/snapshotter/sample-record.ts";

type Step =
  | { readonly kind: "put"; readonly name: string; readonly label: string }
  | { readonly kind: "delete"; readonly name: string }
  | { readonly kind: "owner"; readonly uuid: string };

/** Small, so that compactions happen within a few transactions. */
const COMPACT_BYTES = 700;

async function openOn(disk: CrashingDisk): Promise<Metastore> {
  const clock = new FakeClock();
  return Metastore.open({
    files: disk,
    clock,
    log: silentLogger,
    compactBytesMin: COMPACT_BYTES,
  });
}

function run(metastore: Metastore, step: Step): Promise<void> {
  return metastore.transact((transaction) => {
    if (step.kind === "put") transaction.put(sampleRecord(metastore, step.name, step.label));
    else if (step.kind === "delete") transaction.delete(step.name);
    else transaction.setOwner(step.uuid);
  });
}

describe("metastore", () => {
  it("keeps what it had when the disk is full, and goes on when it no longer is", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    await run(metastore, { kind: "put", name: "a", label: "1" });
    for (const operation of ["write", "sync"] as const) {
      disk.failNext = { operation, error: Object.assign(new Error("full"), { code: "ENOSPC" }) };
      const [first, second] = await Promise.allSettled([
        run(metastore, { kind: "put", name: "b", label: "2" }),
        run(metastore, { kind: "delete", name: "a" }),
      ]);
      assert.equal(first.status, "rejected");
      assert.equal(second.status, "rejected");
      assert.deepEqual(
        [...metastore.records()].map(({ name }) => name),
        ["a"],
      );
      // Nor does a later transaction build on what failed.
      const seen = await metastore.transact((transaction) =>
        ["a", "b"].map((name) => transaction.get(name)?.name),
      );
      assert.deepEqual(seen, ["a", undefined]);
    }
    await run(metastore, { kind: "put", name: "c", label: "3" });
    await metastore[Symbol.asyncDispose]();
    const again = await openOn(disk);
    assert.deepEqual([...again.records()].map(({ name }) => name).toSorted(), ["a", "c"]);
  });

  it("refuses a journal with any bit wrong before its last frame", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    await run(metastore, { kind: "put", name: "a", label: "1" });
    const lastFrame = metastore.journalBytes;
    await run(metastore, { kind: "put", name: "b", label: "2" });
    const journal = disk.contents().get("journal") ?? Buffer.alloc(0);
    for (let bit = 0; bit < journal.length * 8; bit += 1) {
      const damaged = Buffer.from(journal);
      damaged.writeUInt8(damaged.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      const opening = openOn(CrashingDisk.of(new Map([["journal", damaged]])));
      if (bit >> 3 < lastFrame) {
        await assert.rejects(opening, { code: "data-loss" }, `bit ${bit}`);
        continue;
      }
      // In the last frame it looks like a torn write.
      const names = [...(await opening).records()].map((one) => one.name);
      assert.deepEqual(names, ["a"], `bit ${bit}`);
    }
  });

  it("refuses a journal of another format, and one that is no journal", async () => {
    for (const content of [Buffer.alloc(0), Buffer.alloc(4096), Buffer.from("hello, world")]) {
      await assert.rejects(openOn(CrashingDisk.of(new Map([["journal", content]]))), {
        code: "data-loss",
      });
    }
  });

  it("throws what a transaction throws, and changes nothing", async () => {
    const metastore = await openOn(new CrashingDisk());
    await assert.rejects(
      metastore.transact((transaction) => {
        transaction.put(sampleRecord(metastore, "a", "1"));
        throw new RangeError("no");
      }),
      RangeError,
    );
    assert.equal(metastore.size, 0);
  });

  it("shows readers a transaction only once it is durable", async () => {
    const metastore = await openOn(new CrashingDisk());
    const writing = run(metastore, { kind: "put", name: "a", label: "1" });
    assert.equal(metastore.get("a"), undefined);
    // A later transaction builds on it all the same.
    const seen = metastore.transact((transaction) => transaction.get("a")?.name);
    await writing;
    assert.equal(await seen, "a");
    assert.equal(metastore.get("a")?.name, "a");
  });

  it("never gives an id twice, not even that of a removed snapshot after a restart", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    const ids = new Set<number>();
    for (let round = 0; round < 30; round += 1) {
      const one = sampleRecord(metastore, "a", "x".repeat(50));
      assert.ok(!ids.has(one.id));
      ids.add(one.id);
      await metastore.transact((transaction) => {
        transaction.put(one);
      });
      await metastore.transact((transaction) => {
        transaction.delete("a");
      });
    }
    await metastore[Symbol.asyncDispose]();
    assert.ok(!ids.has((await openOn(disk)).reserveId()));
  });

  it("gives times that never go back, with a clock that does", async () => {
    const clock = new FakeClock();
    const metastore = await Metastore.open({
      files: new CrashingDisk(),
      clock,
      log: silentLogger,
    });
    const now = (): Promise<bigint> => metastore.transact((transaction) => transaction.now());
    const first = await now();
    clock.wall -= 5_000_000_000n;
    const second = await now();
    assert.ok(second > first);
  });

  it("keeps its journal small under many changes of few snapshots", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    for (let round = 0; round < 200; round += 1) {
      await run(metastore, { kind: "put", name: "a", label: String(round) });
    }
    assert.ok(metastore.journalBytes < 3 * COMPACT_BYTES, String(metastore.journalBytes));
  });

  it("commits many large transactions at once, in frames that fit", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    const label = "x".repeat(1024 * 1024);
    const names = Array.from({ length: 40 }, (_, at) => `n${at}`);
    await Promise.all(names.map((name) => run(metastore, { kind: "put", name, label })));
    await metastore[Symbol.asyncDispose]();
    assert.equal((await openOn(disk)).size, names.length);
  });

  it("keeps odd labels: __proto__, emptiness, any text", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    const labels = new Map([
      ["__proto__", "x"],
      ["constructor", ""],
      ["ключ 🗝", "\u0000\u2028\ufffd"],
    ]);
    await metastore.transact((transaction) => {
      transaction.put({ ...sampleRecord(metastore, "a", ""), labels });
    });
    await metastore[Symbol.asyncDispose]();
    assert.deepEqual((await openOn(disk)).get("a")?.labels, labels);
  });
});
