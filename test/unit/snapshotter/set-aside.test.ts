/** What was set aside for another containerd goes in the end. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "../../../src/base/log.ts";
import { SET_ASIDE_KEPT_MS } from "../../../src/snapshotter/limits.ts";
import { deleteSetAside, setAsideFolder } from "../../../src/snapshotter/set-aside.ts";
import { FakeClock } from "../../support/snapshotter/fake-clock.ts";

describe("deleteSetAside", () => {
  const { signal } = new AbortController();
  let root: string;
  let clock: FakeClock;

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "faasnet-aside-"));
    clock = new FakeClock();
    const folder = setAsideFolder(root, "uuid-1", clock);
    await mkdir(join(folder, "snapshots", "7", "fs", "etc"), { recursive: true });
    await writeFile(join(folder, "snapshots", "7", "fs", "etc", "file"), "x");
    await writeFile(join(folder, "journal"), "x");
  });
  afterEach(async () => {
    await rm(root, { recursive: true });
  });

  const run = (): Promise<void> => deleteSetAside(root, { clock, log: silentLogger, signal });

  it("keeps them for a while, then deletes all of it", async () => {
    clock.advance(SET_ASIDE_KEPT_MS - 1);
    await run();
    assert.equal((await readdir(join(root, "set-aside"))).length, 1);

    clock.advance(1);
    await run();
    assert.deepEqual(await readdir(root), []);
  });

  it("leaves alone what it did not make, and needs nothing to be there", async () => {
    await mkdir(join(root, "set-aside", "mine"));
    clock.advance(SET_ASIDE_KEPT_MS);
    await run();
    assert.deepEqual(await readdir(join(root, "set-aside")), ["mine"]);

    await rm(join(root, "set-aside"), { recursive: true });
    await run();
  });
});
