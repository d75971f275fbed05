/** One process per folder. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ProcessLock } from "../../../src/base/process-lock.ts";

describe("ProcessLock", () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "faasnet-lock-"));
  });
  after(async () => {
    await rm(folder, { recursive: true });
  });

  it("names the process that holds the folder", async () => {
    await using first = await ProcessLock.acquire(folder, "test");

    await assert.rejects(ProcessLock.acquire(folder, "test"), {
      code: "already-exists",
      message: new RegExp(`in use by process ${process.pid};`),
    });
    assert.ok(first instanceof ProcessLock);
  });

  it("is free again when it was given back", async () => {
    await using again = await ProcessLock.acquire(folder, "test");

    assert.ok(again instanceof ProcessLock);
  });

  it("is one per purpose", async () => {
    await using one = await ProcessLock.acquire(folder, "a");
    await using other = await ProcessLock.acquire(folder, "b");

    assert.notEqual(one, other);
  });
});
