/** The metastore keeps every acknowledged transaction, whatever the moment of a crash. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { silentLogger } from "../../../../src/base/log.ts";
import { Metastore } from "../../../../src/snapshotter/metastore/metastore.ts";
import type { SnapshotRecord } from "../../../../src/snapshotter/snapshot-info.ts";
import { CrashingDisk, PowerLoss } from "../../../support/snapshotter/crashing-disk.ts";
import type { CrashOutcome } from "../../../support/snapshotter/crashing-disk.ts";
import { FakeClock } from "../../../support/snapshotter/fake-clock.ts";

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

function record(metastore: Metastore, name: string, label: string): SnapshotRecord {
  return {
    id: metastore.reserveId(),
    name,
    parent: "",
    kind: "active",
    createdNs: 1n,
    updatedNs: 2n,
    labels: new Map([["containerd.io/snapshot/x", label]]),
    chainId: undefined,
    usage: undefined,
  };
}

function run(metastore: Metastore, step: Step): Promise<void> {
  return metastore.transact((transaction) => {
    if (step.kind === "put") transaction.put(record(metastore, step.name, step.label));
    else if (step.kind === "delete") transaction.delete(step.name);
    else transaction.setOwner(step.uuid);
  });
}

/** What the steps make, as text. */
function modelOf(steps: readonly Step[]): string {
  const labels = new Map<string, string>();
  let owner: string | undefined;
  for (const step of steps) {
    if (step.kind === "put") labels.set(step.name, step.label);
    else if (step.kind === "delete") labels.delete(step.name);
    else owner = step.uuid;
  }
  return JSON.stringify([owner, [...labels].toSorted()]);
}

function stateOf(metastore: Metastore): string {
  const labels = [...metastore.records()].map(
    (one) => [one.name, one.labels.get("containerd.io/snapshot/x") ?? ""] as const,
  );
  return JSON.stringify([metastore.owner, labels.toSorted()]);
}

/** Runs groups of concurrent steps until the power goes; tells how many were acknowledged. */
async function runUntilCrash(
  disk: CrashingDisk,
  groups: readonly (readonly Step[])[],
): Promise<{ readonly acknowledged: number; readonly submitted: Step[] }> {
  const submitted: Step[] = [];
  let acknowledged = 0;
  try {
    const metastore = await openOn(disk);
    for (const group of groups) {
      const results = group.map((step) => {
        submitted.push(step);
        return run(metastore, step).then(() => {
          acknowledged += 1;
        });
      });
      const settled = await Promise.allSettled(results);
      if (settled.some((one) => one.status === "rejected")) break;
    }
  } catch (error) {
    assert.ok(error instanceof Error);
  }
  return { acknowledged, submitted };
}

const OUTCOMES: readonly CrashOutcome[] = [
  { writesKept: 0, zeroed: false, folderKept: 0 },
  { writesKept: 1, zeroed: false, folderKept: 1 },
  { writesKept: 0.5, zeroed: false, folderKept: 0.5 },
  { writesKept: 1, zeroed: true, folderKept: 1 },
  { writesKept: 0, zeroed: false, folderKept: 1 },
  { writesKept: 1, zeroed: false, folderKept: 0 },
];

async function checkRecovery(
  disk: CrashingDisk,
  outcome: CrashOutcome,
  done: { readonly acknowledged: number; readonly submitted: readonly Step[] },
): Promise<void> {
  const survivor = disk.afterCrash(outcome);
  const metastore = await openOn(survivor);
  const state = stateOf(metastore);
  const possible: string[] = [];
  for (let count = done.acknowledged; count <= done.submitted.length; count += 1) {
    possible.push(modelOf(done.submitted.slice(0, count)));
  }
  assert.ok(possible.includes(state), `${state} is none of ${possible.join(" | ")}`);
  // Life goes on: what is written now is read back, on top of what was recovered.
  await run(metastore, { kind: "put", name: "after", label: "crash" });
  const expected = stateOf(metastore);
  await metastore[Symbol.asyncDispose]();
  assert.equal(stateOf(await openOn(survivor)), expected);
}

const step = fc.oneof(
  fc.record({
    kind: fc.constant("put" as const),
    name: fc.constantFrom("a", "b", "c", "ns/1/sha256:x"),
    label: fc.string({ unit: "grapheme", maxLength: 40 }),
  }),
  fc.record({ kind: fc.constant("delete" as const), name: fc.constantFrom("a", "b", "c") }),
  fc.record({ kind: fc.constant("owner" as const), uuid: fc.uuid() }),
);
const groups = fc.array(fc.array(step, { minLength: 1, maxLength: 3 }), {
  minLength: 1,
  maxLength: 6,
});

describe("metastore", () => {
  it("recovers a state between the acknowledged and the attempted, at every byte", async () => {
    const fixed: Step[][] = [
      [{ kind: "owner", uuid: "one" }],
      [
        { kind: "put", name: "a", label: "1" },
        { kind: "put", name: "b", label: "x".repeat(120) },
      ],
      [{ kind: "delete", name: "a" }],
      [{ kind: "put", name: "c", label: "y".repeat(200) }],
      [{ kind: "put", name: "b", label: "2" }],
    ];
    const whole = new CrashingDisk();
    const all = await runUntilCrash(whole, fixed);
    assert.equal(all.acknowledged, fixed.flat().length);
    for (let budget = 0; budget <= whole.spent; budget += 1) {
      const disk = new CrashingDisk(budget);
      const done = await runUntilCrash(disk, fixed);
      for (const outcome of OUTCOMES) await checkRecovery(disk, outcome, done);
    }
  });

  it("recovers any sequence from a crash anywhere", async () => {
    await fc.assert(
      fc.asyncProperty(groups, fc.double({ min: 0, max: 1, noNaN: true }), async (some, share) => {
        const whole = new CrashingDisk();
        await runUntilCrash(whole, some);
        const disk = new CrashingDisk(Math.floor(whole.spent * share));
        const done = await runUntilCrash(disk, some);
        for (const outcome of OUTCOMES) await checkRecovery(disk, outcome, done);
      }),
      { numRuns: 150 },
    );
  });

  it("recovers from a second crash during recovery", async () => {
    const disk = new CrashingDisk(600);
    const done = await runUntilCrash(disk, [
      [{ kind: "put", name: "a", label: "x".repeat(100) }],
      [{ kind: "put", name: "b", label: "x".repeat(300) }],
      [{ kind: "put", name: "c", label: "x".repeat(300) }],
    ]);
    const torn: CrashOutcome = { writesKept: 0.5, zeroed: false, folderKept: 1 };
    for (let budget = 0; budget < 12; budget += 1) {
      const survivor = new CrashingDisk(budget, disk.afterCrash(torn).contents());
      await openOn(survivor).catch((error: unknown) => {
        assert.ok(error instanceof Error && error.cause instanceof PowerLoss);
      });
      await checkRecovery(survivor, { writesKept: 0, zeroed: false, folderKept: 0 }, done);
    }
  });

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

  it("acknowledges nothing while it is unknown which file a crash would bring back", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    await run(metastore, { kind: "put", name: "a", label: "x".repeat(400) });
    const error = Object.assign(new Error("io"), { code: "EIO" });
    disk.failNext = { operation: "folder", error };
    // This one makes the journal due for compaction, whose folder sync fails.
    await run(metastore, { kind: "put", name: "b", label: "x".repeat(400) });
    await run(metastore, { kind: "put", name: "c", label: "1" });
    for (const folderKept of [0, 0.5, 1]) {
      const survivor = disk.afterCrash({ writesKept: 0, zeroed: false, folderKept });
      const names = [...(await openOn(survivor)).records()].map(({ name }) => name);
      assert.deepEqual(names.toSorted(), ["a", "b", "c"]);
    }
  });

  it("refuses a journal that is damaged before its end", async () => {
    const disk = new CrashingDisk();
    const metastore = await openOn(disk);
    await run(metastore, { kind: "put", name: "a", label: "1" });
    await run(metastore, { kind: "put", name: "b", label: "2" });
    const journal = disk.contents().get("journal") ?? Buffer.alloc(0);
    const end = journal.length;
    const damaged = Buffer.from(journal);
    damaged.writeUInt8(damaged.readUInt8(60) ^ 1, 60);
    await assert.rejects(openOn(new CrashingDisk(Infinity, new Map([["journal", damaged]]))), {
      code: "data-loss",
    });
    // The same in the last frame is a torn write.
    const torn = Buffer.from(journal);
    torn.writeUInt8(torn.readUInt8(end - 2) ^ 1, end - 2);
    const names = await openOn(new CrashingDisk(Infinity, new Map([["journal", torn]])));
    assert.deepEqual(
      [...names.records()].map(({ name }) => name),
      ["a"],
    );
  });

  it("refuses a journal of another format, and one that is no journal", async () => {
    for (const content of [Buffer.alloc(0), Buffer.alloc(4096), Buffer.from("hello, world")]) {
      await assert.rejects(openOn(new CrashingDisk(Infinity, new Map([["journal", content]]))), {
        code: "data-loss",
      });
    }
  });

  it("throws what a transaction throws, and changes nothing", async () => {
    const metastore = await openOn(new CrashingDisk());
    await assert.rejects(
      metastore.transact((transaction) => {
        transaction.put(record(metastore, "a", "1"));
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
      const one = record(metastore, "a", "x".repeat(50));
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
      transaction.put({ ...record(metastore, "a", ""), labels });
    });
    await metastore[Symbol.asyncDispose]();
    assert.deepEqual((await openOn(disk)).get("a")?.labels, labels);
  });
});
