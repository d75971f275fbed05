/** The metastore on a disk that has no room: what is refused, and what still goes. */
import assert from "node:assert/strict";
import { silentLogger } from "../../../../src/base/log.ts";
import { Metastore } from "../../../../src/snapshotter/metastore/metastore.ts";
import type { JournalFiles } from "../../../../src/snapshotter/metastore/journal-files.ts";
import { CrashingDisk } from "../../../support/snapshotter/crashing-disk.ts";
import { FakeClock } from "../../../support/snapshotter/fake-clock.ts";
import { sampleRecord } from "../../../support/snapshotter/sample-record.ts";

/** A disk whose files may have so many bytes together; `new` files count too. */
function bounded(disk: CrashingDisk): { readonly files: JournalFiles; room: number } {
  const state = { room: Infinity };
  const check = (bytes: Uint8Array): void => {
    if (bytes.length > state.room) {
      throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    }
    state.room -= bytes.length;
  };
  const guard = (file: Awaited<ReturnType<JournalFiles["create"]>>): typeof file => ({
    write: async (bytes, position) => {
      check(bytes);
      await file.write(bytes, position);
    },
    truncate: (bytes) => file.truncate(bytes),
    sync: () => file.sync(),
    close: () => file.close(),
  });
  const files: JournalFiles = {
    read: (name) => disk.read(name),
    openExisting: async (name) => guard(await disk.openExisting(name)),
    create: async (name) => guard(await disk.create(name)),
    rename: (from, to) => disk.rename(from, to),
    remove: (name) => disk.remove(name),
    syncFolder: () => disk.syncFolder(),
  };
  return Object.assign(state, { files });
}

describe("metastore on a full disk", () => {
  async function open(files: JournalFiles): Promise<Metastore> {
    return Metastore.open({ files, clock: new FakeClock(), log: silentLogger });
  }

  function put(metastore: Metastore, name: string, label = ""): Promise<void> {
    return metastore.transact((transaction) => {
      transaction.put(sampleRecord(metastore, name, label));
    });
  }

  it("removes what it could not add to: a smaller frame may fit", async () => {
    const disk = new CrashingDisk();
    const small = bounded(disk);
    const metastore = await open(small.files);
    for (const name of ["a", "b"]) await put(metastore, name, "x".repeat(500));
    small.room = 200; // a removal's frame, not a whole new journal

    await assert.rejects(put(metastore, "c", "x".repeat(1000)), { code: "resource-exhausted" });
    await metastore.transact((transaction) => {
      transaction.delete("a");
    });

    small.room = Infinity;
    await put(metastore, "d");
    await metastore[Symbol.asyncDispose]();
    const again = await open(disk);
    assert.deepEqual([...again.records()].map(({ name }) => name).toSorted(), ["b", "d"]);
  });

  it("leaves no part of a new journal that found no room", async () => {
    const disk = new CrashingDisk();
    const small = bounded(disk);
    const metastore = await open(small.files);
    for (let at = 0; at < 20; at += 1) await put(metastore, `s${at}`, "x".repeat(100));
    disk.failNext = { operation: "sync", error: new Error("EIO") };
    await assert.rejects(put(metastore, "broken")); // only a rewrite helps now
    small.room = 100;

    await assert.rejects(put(metastore, "c"), { code: "resource-exhausted" });

    assert.deepEqual([...disk.contents().keys()], ["journal"]);
    small.room = Infinity;
    await put(metastore, "d");
    assert.equal(metastore.size, 21);
  });
});
