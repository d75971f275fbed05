/** Snapshots from Prepare to Cleanup on a real disk; containerd and image service are played. */
import assert from "node:assert/strict";
import { chmod, chown, link, mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DaemonError } from "../../../src/base/errors.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { Snapshotter } from "../../../src/snapshotter/index.ts";
import { needs } from "../../support/lab/index.ts";
import { SnapshotterBench } from "../../support/snapshotter/snapshotter-bench.ts";

const { signal } = new AbortController();

describe("snapshot lifecycle", () => {
  let bench: SnapshotterBench;

  before(function () {
    needs(this, { root: true });
  });

  beforeEach(async () => {
    bench = await SnapshotterBench.create();
  });

  afterEach(async () => {
    await bench[Symbol.asyncDispose]();
  });

  describe("mounts", () => {
    it("put local layers on one folder for the whole claimed chain", async () => {
      const [base, top] = bench.image("a", "b");
      await bench.trees(base, top);
      await bench.pull(base, "", "default/1/x");
      await bench.pull(top, bench.lookUp(base, "").name, "default/2/x");
      const claimed = bench.lookUp(top, bench.lookUp(base, "").name).name;
      await bench.layer("local", claimed);
      const [mount] = await bench.prepare("container", "local");
      const merged = bench.provider.known.get(top) ?? "";
      const lower = mount?.options.find((option) => option.startsWith("lowerdir=")) ?? "";
      assert.match(lower, new RegExp(`^lowerdir=${bench.root}/snapshots/\\d+/fs:${merged}$`));
      const [readOnly] = await bench.view("look", claimed);
      assert.deepEqual(readOnly, {
        type: "bind",
        source: merged,
        target: "",
        options: ["ro", "rbind"],
      });
    });

    it("are the same when they are asked for again, and mount the chain anew", async () => {
      const [base] = bench.image("a", "b");
      await bench.trees(base);
      await bench.pull(base, "", "default/1/x");
      const first = await bench.prepare("container", bench.lookUp(base, "").name);
      await bench.reopen();
      bench.containerd.failure = new DaemonError("unavailable", "away");
      const before = bench.provider.of("mount").length;
      const asked = bench.containerd.counts.size;
      assert.deepEqual(await bench.snapshotter.mounts("container", { signal }), first);
      assert.equal(bench.provider.of("mount").length, before + 1);
      assert.equal(bench.provider.of("ensure").length, 0);
      assert.equal(bench.containerd.counts.size, asked);
    });

    it("are refused for a committed snapshot, and fail when the chain cannot be mounted", async () => {
      await bench.layer("local");
      await assert.rejects(bench.snapshotter.mounts("local", { signal }), {
        code: "failed-precondition",
      });
      await assert.rejects(bench.snapshotter.mounts("absent", { signal }), { code: "not-found" });
      const [base] = bench.image("a", "b");
      await bench.trees(base);
      await bench.pull(base, "", "default/1/x");
      bench.provider.failure = new DaemonError("unavailable", "image service is away");
      await assert.rejects(bench.prepare("container", bench.lookUp(base, "").name), {
        code: "unavailable",
      });
      assert.equal(bench.snapshotter.list(["kind==active"]).length, 0);
      assert.equal((await bench.snapshotFolders()).length, 1);
    });

    it("show the parent's owner and mode at the root", async () => {
      await bench.prepare("a");
      const upper = (await bench.snapshotter.mounts("a", { signal }))[0]?.source ?? "";
      assert.equal((await stat(upper)).mode & 0o7777, 0o755);
      await chown(upper, 1234, 5678);
      await chmod(upper, 0o1751);
      await bench.commit("local", "a");
      await bench.prepare("b", "local");
      const [mount] = await bench.snapshotter.mounts("b", { signal });
      const option = mount?.options.find((one) => one.startsWith("upperdir=")) ?? "";
      const { uid, gid, mode } = await stat(option.slice("upperdir=".length));
      assert.deepEqual([uid, gid, mode & 0o7777], [1234, 5678, 0o1751]);
    });

    it("carry ID maps when the plugin declares them, and own the root accordingly", async () => {
      await bench.reopen({ remapIds: true });
      await bench.layer("local");
      const labels = {
        "containerd.io/snapshot/uidmapping": "0:100000:65536",
        "containerd.io/snapshot/gidmapping": "0:200000:65536",
      };
      const [mount] = await bench.prepare("container", "local", labels);
      assert.ok(mount?.options.includes("uidmap=0:100000:65536"));
      const option = mount?.options.find((one) => one.startsWith("upperdir=")) ?? "";
      const { uid, gid } = await stat(option.slice("upperdir=".length));
      assert.deepEqual([uid, gid], [100_000, 200_000]);
      const malformed = { "containerd.io/snapshot/uidmapping": "x" };
      await assert.rejects(bench.prepare("other", "local", malformed), {
        code: "invalid-argument",
      });
    });
  });

  describe("commit", () => {
    it("calls nobody: it runs inside containerd's database transaction", async () => {
      await bench.prepare("key");
      const before = [bench.provider.calls.length, JSON.stringify([...bench.containerd.counts])];
      bench.containerd.isConnected = false;
      await bench.commit("name", "key");
      assert.deepEqual(
        [bench.provider.calls.length, JSON.stringify([...bench.containerd.counts])],
        before,
      );
    });

    it("replaces the labels and frees the key", async () => {
      await bench.prepare("key", "", { "containerd.io/snapshot/a": "1" });
      await bench.commit("name", "key", { "containerd.io/snapshot/b": "2" });
      assert.deepEqual(
        bench.snapshotter.stat("name").labels,
        new Map([["containerd.io/snapshot/b", "2"]]),
      );
      assert.throws(() => bench.snapshotter.stat("key"), { code: "not-found" });
      await bench.prepare("key");
    });

    it("is refused for what is not active, is absent, or has a taken name", async () => {
      await bench.layer("taken");
      await bench.view("look", "taken");
      await bench.prepare("key");
      await assert.rejects(bench.commit("name", "look"), { code: "failed-precondition" });
      await assert.rejects(bench.commit("name", "absent"), { code: "not-found" });
      await assert.rejects(bench.commit("taken", "key"), { code: "already-exists" });
      await assert.rejects(bench.commit("", "key"), { code: "invalid-argument" });
    });

    it("takes the parent at commit only where there was none", async () => {
      await bench.layer("a");
      await bench.layer("b");
      await bench.prepare("free");
      const labels = new Map<string, string>();
      await bench.snapshotter.commit({ name: "rebased", key: "free", parent: "a", labels });
      assert.equal(bench.snapshotter.stat("rebased").parent, "a");
      await assert.rejects(bench.snapshotter.remove("a"), { code: "failed-precondition" });
      await bench.prepare("bound", "a");
      await assert.rejects(
        bench.snapshotter.commit({ name: "moved", key: "bound", parent: "b", labels }),
        { code: "invalid-argument" },
      );
    });
  });

  describe("usage", () => {
    async function upperOf(key: string): Promise<string> {
      return (await bench.snapshotter.mounts(key, { signal }))[0]?.source ?? "";
    }

    it("counts disk blocks and inodes, hard links once", async () => {
      await bench.prepare("key");
      const upper = await upperOf("key");
      const empty = await bench.snapshotter.usage("key", { signal });
      assert.equal(empty.inodes, 1);
      await writeFile(join(upper, "a"), Buffer.alloc(40_000, 1));
      await link(join(upper, "a"), join(upper, "b"));
      await mkdir(join(upper, "d"));
      await writeFile(
        Buffer.concat([Buffer.from(upper), Buffer.from("/d/\xff\xfe", "latin1")]),
        "",
      );
      const used = await bench.snapshotter.usage("key", { signal });
      assert.equal(used.inodes, 4);
      assert.ok(used.bytes >= empty.bytes + 40_000 && used.bytes < empty.bytes + 80_000);
    });

    it("of a committed snapshot is counted once, and survives a restart", async () => {
      await bench.prepare("key");
      const upper = await upperOf("key");
      await writeFile(join(upper, "a"), Buffer.alloc(40_000, 1));
      await bench.commit("name", "key");
      const used = await bench.snapshotter.usage("name", { signal });
      await rm(join(upper, "a"));
      assert.deepEqual(await bench.snapshotter.usage("name", { signal }), used);
      await bench.reopen();
      assert.deepEqual(await bench.snapshotter.usage("name", { signal }), used);
      assert.equal(used.inodes, 2);
    });

    it("of a claimed layer is the most that it may occupy; a view has none", async () => {
      const [base] = bench.image("a", "b");
      await bench.trees(base);
      await bench.pull(base, "", "default/1/x");
      const { name } = bench.lookUp(base, "");
      assert.deepEqual(await bench.snapshotter.usage(name, { signal }), {
        bytes: 1000,
        inodes: 10,
      });
      await bench.view("look", name);
      assert.deepEqual(await bench.snapshotter.usage("look", { signal }), { bytes: 0, inodes: 0 });
    });
  });

  describe("remove and cleanup", () => {
    it("free the key at once and the space later", async () => {
      await bench.layer("a");
      await bench.layer("b", "a");
      await assert.rejects(bench.snapshotter.remove("a"), /remove/);
      await bench.snapshotter.remove("b");
      await bench.snapshotter.remove("a");
      await assert.rejects(bench.snapshotter.remove("a"), { code: "not-found" });
      const trashed = await bench.snapshotFolders();
      assert.ok(trashed.length === 2 && trashed.every((name) => name.startsWith("trash-")));
      await bench.layer("a");
      await bench.snapshotter.cleanup({ signal });
      assert.deepEqual((await bench.snapshotFolders()).length, 1);
    });

    it("release a chain again when that failed", async () => {
      const [base] = bench.image("a", "b");
      await bench.trees(base);
      await bench.pull(base, "", "default/1/x");
      await bench.snapshotter.remove(bench.lookUp(base, "").name);
      bench.provider.failure = new DaemonError("unavailable", "image service is away");
      await bench.snapshotter.cleanup({ signal });
      bench.provider.failure = undefined;
      await bench.snapshotter.cleanup({ signal });
      assert.equal(bench.provider.of("release").length, 2);
      await bench.snapshotter.cleanup({ signal });
      assert.equal(bench.provider.of("release").length, 2);
    });

    it("clear away at the start what a crash left without a record", async () => {
      await bench.layer("kept");
      await bench.close();
      for (const name of ["99", "new-98", "trash-1-1"]) {
        await mkdir(join(bench.root, "snapshots", name, "fs", "deep"), { recursive: true });
      }
      await bench.open();
      await bench.snapshotter.cleanup({ signal });
      assert.deepEqual(await bench.snapshotFolders(), ["1"]);
      await bench.prepare("next", "kept");
    });

    it("find what was removed while an earlier clean-up ran", async () => {
      const first = bench.snapshotter.cleanup({ signal });
      await bench.layer("a");
      await bench.snapshotter.remove("a");
      await Promise.all([first, bench.snapshotter.cleanup({ signal })]);
      assert.deepEqual(await bench.snapshotFolders(), []);
      await assert.rejects(bench.snapshotter.cleanup({ signal: AbortSignal.abort() }), {
        code: "canceled",
      });
    });

    it("leave a snapshot alone that is being made", async () => {
      const making = Promise.all(["1", "2", "3", "4", "5", "6"].map((key) => bench.prepare(key)));
      for (let round = 0; round < 20; round += 1) await bench.snapshotter.cleanup({ signal });
      for (const [mount] of await making)
        assert.ok((await stat(mount?.source ?? "")).isDirectory());
    });
  });

  describe("metadata", () => {
    it("is refused where containerd would refuse it", async () => {
      await bench.prepare("active");
      await bench.layer("done");
      await assert.rejects(bench.prepare("active"), { code: "already-exists" });
      await assert.rejects(bench.view("done", ""), { code: "already-exists" });
      await assert.rejects(bench.prepare("x", "absent"), { code: "not-found" });
      await assert.rejects(bench.prepare("x", "active"), { code: "invalid-argument" });
      await assert.rejects(bench.prepare(""), { code: "invalid-argument" });
      await assert.rejects(bench.prepare("x".repeat(10_000)), { code: "invalid-argument" });
      await assert.rejects(bench.prepare("x", "", { k: "v".repeat(4096) }), {
        code: "invalid-argument",
      });
      assert.equal(bench.snapshotter.list([]).length, 2);
      assert.deepEqual(await bench.snapshotFolders(), ["1", "2"]);
    });

    it("has labels that can be replaced, changed one by one, and removed", async () => {
      await bench.prepare("key", "", { a: "1", empty: "" });
      const created = bench.snapshotter.stat("key");
      assert.equal(created.createdNs, created.updatedNs);
      assert.deepEqual(created.labels, new Map([["a", "1"]]));
      const update = (paths: readonly string[], labels: Record<string, string>) =>
        bench.snapshotter.update({ name: "key", paths, labels: new Map(Object.entries(labels)) });
      const added = await update(["labels.b.c"], { "b.c": "2", ignored: "x" });
      assert.deepEqual(Object.fromEntries(added.labels), { a: "1", "b.c": "2" });
      assert.ok(added.updatedNs > created.updatedNs && added.createdNs === created.createdNs);
      assert.deepEqual(Object.fromEntries((await update(["labels.a"], {})).labels), { "b.c": "2" });
      assert.deepEqual(Object.fromEntries((await update([], { z: "9" })).labels), { z: "9" });
      for (const path of ["parent", "name", "kind", "created", "labelsx"]) {
        await assert.rejects(update([path], {}), { code: "invalid-argument" });
      }
      await bench.reopen();
      assert.deepEqual(Object.fromEntries(bench.snapshotter.stat("key").labels), { z: "9" });
    });
  });

  describe("owner", () => {
    it("is learnt once containerd can be reached", async () => {
      bench.containerd.failure = new DaemonError("unavailable", "starting");
      await bench.reopen();
      await bench.layer("early");
      bench.containerd.failure = undefined;
      await bench.layer("late");
      assert.equal(bench.snapshotter.list([]).length, 2);
      await bench.reopen();
      await bench.layer("later");
      assert.equal(bench.snapshotter.list([]).length, 3);
    });

    it("that changed has the old snapshots set aside, while running and at the start", async () => {
      const [base] = bench.image("a", "b");
      await bench.trees(base);
      await bench.pull(base, "", "default/1/x");
      await bench.prepare("default/2/container", bench.lookUp(base, "").name);
      bench.containerd.uuidNow = "uuid-2";
      bench.containerd.isConnected = false;
      // The new containerd counts from 1 again: the same key must be free.
      await bench.prepare("default/2/container");
      assert.deepEqual(
        bench.snapshotter.list([]).map(({ name }) => name),
        ["default/2/container"],
      );
      bench.containerd.uuidNow = "uuid-3";
      await bench.reopen();
      await bench.prepare("default/2/container");
      const aside = (await readdir(join(bench.root, "set-aside"))).toSorted();
      assert.deepEqual(
        aside.map((name) => name.slice(0, 6)),
        ["uuid-1", "uuid-2"],
      );
      for (const folder of aside) {
        assert.deepEqual(await readdir(join(bench.root, "set-aside", folder)), [
          "journal",
          "snapshots",
        ]);
        assert.equal((await readdir(join(bench.root, "set-aside", folder, "snapshots"))).length, 1);
      }
    });

    it("that cannot be told apart is nobody's problem", async () => {
      await bench.reopen({ containerd: undefined });
      await bench.layer("a");
      assert.equal(bench.snapshotter.list([]).length, 1);
    });
  });

  it("refuses a root that overlay options cannot name, and a damaged journal", async () => {
    const { root, provider, containerd } = bench;
    const options = { provider, containerd, clock: systemClock, log: silentLogger };
    await assert.rejects(Snapshotter.open({ ...options, root: "/tmp/a:b" }), {
      code: "invalid-argument",
    });
    await bench.close();
    await writeFile(join(bench.root, "metastore", "journal"), "nonsense");
    await assert.rejects(Snapshotter.open({ ...options, root }), { code: "data-loss" });
    await rm(join(bench.root, "metastore", "journal"));
    await bench.open();
  });
});
