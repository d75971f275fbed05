/** What was set aside stays as long as a container of the old containerd has it mounted. */
import assert from "node:assert/strict";
import { mkdir, readdir, rename } from "node:fs/promises";
import { dirname, join } from "node:path";
import { silentLogger } from "../../../src/base/log.ts";
import { SET_ASIDE_KEPT_MS } from "../../../src/snapshotter/limits.ts";
import { deleteSetAside, setAsideFolder } from "../../../src/snapshotter/set-aside.ts";
import { Lab, needs, run } from "../../support/lab/index.ts";
import { FakeClock } from "../../support/snapshotter/fake-clock.ts";

describe("deleteSetAside with a running container", () => {
  let lab: Lab;
  before(async function () {
    needs(this, { root: true });
    lab = await Lab.create();
  });
  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  it("waits until the overlay is unmounted", async () => {
    const root = await lab.makeFolder("root");
    const clock = new FakeClock();
    const target = join(root, "merged");
    const of = (id: number, name: string): string => join(root, "snapshots", String(id), name);
    for (const folder of [target, of(1, "fs"), of(2, "fs"), of(2, "work")]) {
      await mkdir(folder, { recursive: true });
    }
    const layers = `lowerdir=${of(1, "fs")},upperdir=${of(2, "fs")},workdir=${of(2, "work")}`;
    await run("mount", ["-t", "overlay", "overlay", "-o", layers, target]);
    const aside = setAsideFolder(root, "uuid-1", clock);
    await mkdir(dirname(aside), { recursive: true });
    await mkdir(aside);
    await rename(join(root, "snapshots"), join(aside, "snapshots"));
    clock.advance(SET_ASIDE_KEPT_MS);
    const options = { clock, log: silentLogger, signal: new AbortController().signal };

    await deleteSetAside(root, options);
    assert.deepEqual((await readdir(join(aside, "snapshots"))).toSorted(), ["1", "2"]);

    await run("umount", [target]);
    await deleteSetAside(root, options);
    assert.deepEqual(await readdir(root), ["merged"]);
  });
});
