/** Snapshots from Prepare to Cleanup on a real disk; containerd and the image service are played. */
import assert from "node:assert/strict";
import { chmod, chown, link, mkdir, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DaemonError } from "../../../src/base/errors.ts";
import { systemClock } from "../../../src/base/clock.ts";
import { silentLogger } from "../../../src/base/log.ts";
import { Scope } from "../../../src/base/scope.ts";
import { digestHex } from "../../../src/oci/index.ts";
import type { ChainId } from "../../../src/oci/index.ts";
import { Snapshotter } from "../../../src/snapshotter/index.ts";
import type { Mount, SnapshotInfo, SnapshotterOptions } from "../../../src/snapshotter/index.ts";
import { LABEL_PARENT_CHAIN_ID, LABEL_SNAPSHOT_REF } from "../../../src/snapshotter/labels.ts";
import { needs } from "../../support/lab/index.ts";
import { temporaryFolder } from "../../support/snapshotter/daemon.ts";
import { FakeContainerd } from "../../support/snapshotter/fake-containerd.ts";
import { FakeProvider, provided } from "../../support/snapshotter/fake-provider.ts";

const { signal } = new AbortController();
const SOURCE = new Map([["containerd.io/distribution.source.reg.example", "app"]]);

describe("snapshot lifecycle", () => {
  let scope: Scope;
  let root: string;
  let provider: FakeProvider;
  let containerd: FakeContainerd;
  let snapshotter: Snapshotter;
  let own: Scope;

  before(function () {
    needs(this, { root: true });
  });

  async function open(overrides: Partial<SnapshotterOptions> = {}): Promise<void> {
    own = scope.use(new Scope());
    snapshotter = own.use(
      await Snapshotter.open({
        root,
        provider,
        containerd,
        clock: systemClock,
        log: silentLogger,
        ...overrides,
      }),
    );
  }

  async function reopen(overrides: Partial<SnapshotterOptions> = {}): Promise<void> {
    await own[Symbol.asyncDispose]();
    await open(overrides);
  }

  beforeEach(async () => {
    scope = new Scope();
    root = join(await temporaryFolder(scope, "fn-life-"), "root");
    provider = new FakeProvider();
    containerd = new FakeContainerd();
    await open();
  });

  afterEach(async () => {
    await scope[Symbol.asyncDispose]();
  });

  function prepare(
    key: string,
    parent = "",
    labels: Readonly<Record<string, string>> = {},
  ): Promise<Mount[]> {
    const input = { key, parent, labels: new Map(Object.entries(labels)), namespace: "default" };
    return snapshotter.prepare(input, { signal });
  }

  function view(key: string, parent: string): Promise<Mount[]> {
    return snapshotter.view({ key, parent, labels: new Map(), namespace: "" }, { signal });
  }

  function commit(name: string, key: string, labels: Record<string, string> = {}): Promise<void> {
    const input = { name, key, parent: "", labels: new Map(Object.entries(labels)) };
    return snapshotter.commit(input);
  }

  async function layer(name: string, parent = ""): Promise<void> {
    await prepare(`${name}-key`, parent);
    await commit(name, `${name}-key`);
  }

  /** As the unpacker does: the layer's chain ID as the wanted snapshot. */
  async function pull(chain: ChainId, parent: string, key: string): Promise<"claimed" | Mount[]> {
    try {
      return await prepare(key, parent, { [LABEL_SNAPSHOT_REF]: chain });
    } catch (error) {
      assert.ok(error instanceof DaemonError && error.code === "already-exists", String(error));
      return "claimed";
    }
  }

  /** As containerd's metadata layer looks the claimed snapshot up after AlreadyExists. */
  function lookUp(chain: ChainId, parent: string): SnapshotInfo {
    const filter = `labels."${LABEL_SNAPSHOT_REF}"==${chain},parent==${JSON.stringify(parent)}`;
    const [found] = snapshotter.list([filter]).filter(({ kind }) => kind === "committed");
    assert.ok(found !== undefined, `containerd finds no snapshot of ${chain} on "${parent}"`);
    return found;
  }

  async function trees(...chains: readonly ChainId[]): Promise<void> {
    for (const chain of chains) {
      const folder = join(root, "..", digestHex(chain).slice(-8));
      await mkdir(folder, { recursive: true });
      provider.known.set(chain, folder);
    }
  }

  function image(...seeds: readonly string[]): readonly [ChainId, ChainId] {
    const [base, top] = containerd.add({ seeds, labels: SOURCE }).chains;
    assert.ok(base !== undefined && top !== undefined);
    return [base, top];
  }

  async function snapshotFolders(): Promise<string[]> {
    return (await readdir(join(root, "snapshots"))).toSorted();
  }

  describe("claims", () => {
    it("commit inside Prepare, with the label and the exact parent that containerd looks for", async () => {
      const [base, top] = image("a", "b");
      await trees(base, top);
      assert.equal(await pull(base, "", "default/1/extract-1 x"), "claimed");
      const { name } = lookUp(base, "");
      assert.equal(await pull(top, name, "default/2/extract-2 y"), "claimed");
      assert.equal(lookUp(top, name).parent, name);
      assert.deepEqual(snapshotter.claimedChains(), [base, top]);
      // Nothing of a claim is on this disk, and no active snapshot is left behind.
      assert.deepEqual(await snapshotFolders(), []);
      assert.equal(snapshotter.list(["kind==active"]).length, 0);
    });

    it("never happen without a wanted snapshot, nor for a View", async () => {
      const [base] = image("a", "b");
      await trees(base);
      const mounts = await prepare(`default/1/extract-1 ${base}`);
      assert.equal(mounts[0]?.type, "bind");
      const labels = new Map([[LABEL_SNAPSHOT_REF, base]]);
      const input = { key: "default/2/v", parent: "", labels, namespace: "" };
      assert.equal((await snapshotter.view(input, { signal }))[0]?.type, "bind");
    });

    it("ignore a wanted snapshot that is no digest", async () => {
      const mounts = await prepare("k", "", { [LABEL_SNAPSHOT_REF]: "something" });
      assert.equal(mounts[0]?.type, "bind");
    });

    it("ensure the image once, and claim later layers in their own Prepare", async () => {
      const [base, top] = image("a", "b");
      provider.onEnsure = async () => {
        await trees(base, top);
        return [base, top].map(provided);
      };
      assert.equal(await pull(base, "", "default/1/x"), "claimed");
      assert.deepEqual(snapshotter.claimedChains(), [base]);
      assert.equal(await pull(top, lookUp(base, "").name, "default/2/x"), "claimed");
      assert.equal(provider.of("ensure").length, 1);
    });

    it("have a name for each parent: two namespaces' own copies of a base do not collide", async () => {
      const [base, top] = image("a", "b");
      await trees(top);
      await layer(`n1/7/${base}`);
      await layer(`n2/3/${base}`);
      assert.equal(await pull(top, `n1/7/${base}`, "n1/8/x"), "claimed");
      assert.equal(await pull(top, `n2/3/${base}`, "n2/4/x"), "claimed");
      const first = lookUp(top, `n1/7/${base}`).name;
      const second = lookUp(top, `n2/3/${base}`).name;
      assert.notEqual(first, second);
      // The chain's mount covers the local base too.
      const [mount] = await prepare("n1/9/container", first);
      const folder = provider.known.get(top) ?? "";
      assert.ok(mount?.options.includes(`lowerdir=${folder}`));
      // It is released when the last of both is gone.
      await snapshotter.remove("n1/9/container");
      await snapshotter.remove(first);
      await snapshotter.cleanup({ signal });
      assert.equal(provider.of("release").length, 0);
      await snapshotter.remove(second);
      await snapshotter.cleanup({ signal });
      assert.deepEqual(
        provider.of("release").map(({ chainId }) => chainId),
        [top],
      );
    });

    it("are answered from the metastore when they are there, and get a lost label back", async () => {
      const [base] = image("a", "b");
      await trees(base);
      await pull(base, "", "default/1/x");
      const { name } = lookUp(base, "");
      provider.failure = new DaemonError("unavailable", "image service is away");
      await snapshotter.update({ name, labels: new Map(), paths: [] });
      assert.equal(await pull(base, "", "default/2/x"), "claimed");
      assert.equal(lookUp(base, "").name, name);
    });

    it("of the same layer at the same time agree", async () => {
      const [base] = image("a", "b");
      await trees(base);
      const pulls = ["1", "2", "3", "4"].map((n) => pull(base, "", `default/${n}/x`));
      assert.deepEqual(
        await Promise.all(pulls),
        pulls.map(() => "claimed"),
      );
      assert.equal(snapshotter.list([]).length, 1);
    });

    it("survive a cancelled Prepare: the retry joins the work", async () => {
      const [base, top] = image("a", "b");
      let finish = (): void => undefined;
      const work = new Promise<void>((resolve) => {
        finish = resolve;
      });
      provider.onEnsure = async () => {
        await work;
        return [base, top].map(provided);
      };
      const first = new AbortController();
      const labels = new Map([[LABEL_SNAPSHOT_REF, base]]);
      const input = { key: "default/1/x", parent: "", labels, namespace: "default" };
      const cancelled = snapshotter.prepare(input, { signal: first.signal });
      while (provider.of("ensure").length === 0) await new Promise(setImmediate);
      first.abort();
      await assert.rejects(cancelled, { code: "canceled" });
      const retry = pull(base, "", "default/2/x");
      while (provider.of("ensure").length === 1) await new Promise(setImmediate);
      finish();
      assert.equal(await retry, "claimed");
      assert.equal(snapshotter.list([]).length, 1);
    });

    it("are not made for upper layers that parallel unpack prepares without a parent", async () => {
      const [base, top] = image("a", "b");
      await trees(top);
      const labels = { [LABEL_SNAPSHOT_REF]: top, [LABEL_PARENT_CHAIN_ID]: base };
      assert.equal((await prepare("default/1/x", "", labels))[0]?.type, "bind");
    });

    it("wait until the image service knows what is claimed already", async () => {
      const [base] = image("a", "b");
      await trees(base);
      provider.failure = new DaemonError("unavailable", "image service is away");
      await reopen();
      assert.notEqual(await pull(base, "", "default/1/x"), "claimed");
      provider.failure = undefined;
      assert.equal(await pull(base, "", "default/2/x"), "claimed");
      const retained = provider.of("retain");
      assert.deepEqual(retained.at(-1)?.chainIds, []);
      await reopen();
      while (provider.of("retain").length === retained.length) await new Promise(setImmediate);
      assert.deepEqual(provider.of("retain").at(-1)?.chainIds, [base]);
    });
  });

  describe("mounts", () => {
    it("put local layers on one folder for the whole claimed chain", async () => {
      const [base, top] = image("a", "b");
      await trees(base, top);
      await pull(base, "", "default/1/x");
      await pull(top, lookUp(base, "").name, "default/2/x");
      const claimed = lookUp(top, lookUp(base, "").name).name;
      await layer("local", claimed);
      const [mount] = await prepare("container", "local");
      const merged = provider.known.get(top) ?? "";
      const lower = mount?.options.find((option) => option.startsWith("lowerdir=")) ?? "";
      assert.match(lower, new RegExp(`^lowerdir=${root}/snapshots/\\d+/fs:${merged}$`));
      const [readOnly] = await view("look", claimed);
      assert.deepEqual(readOnly, {
        type: "bind",
        source: merged,
        target: "",
        options: ["ro", "rbind"],
      });
    });

    it("are the same when they are asked for again, and mount the chain anew", async () => {
      const [base] = image("a", "b");
      await trees(base);
      await pull(base, "", "default/1/x");
      const first = await prepare("container", lookUp(base, "").name);
      await reopen();
      containerd.failure = new DaemonError("unavailable", "away");
      const before = provider.of("mount").length;
      const asked = containerd.counts.size;
      assert.deepEqual(await snapshotter.mounts("container", { signal }), first);
      assert.equal(provider.of("mount").length, before + 1);
      assert.equal(provider.of("ensure").length, 0);
      assert.equal(containerd.counts.size, asked);
    });

    it("are refused for a committed snapshot, and fail when the chain cannot be mounted", async () => {
      await layer("local");
      await assert.rejects(snapshotter.mounts("local", { signal }), {
        code: "failed-precondition",
      });
      await assert.rejects(snapshotter.mounts("absent", { signal }), { code: "not-found" });
      const [base] = image("a", "b");
      await trees(base);
      await pull(base, "", "default/1/x");
      provider.failure = new DaemonError("unavailable", "image service is away");
      await assert.rejects(prepare("container", lookUp(base, "").name), { code: "unavailable" });
      assert.equal(snapshotter.list(["kind==active"]).length, 0);
      assert.equal((await snapshotFolders()).length, 1);
    });

    it("show the parent's owner and mode at the root", async () => {
      await prepare("a");
      const upper = (await snapshotter.mounts("a", { signal }))[0]?.source ?? "";
      assert.equal((await stat(upper)).mode & 0o7777, 0o755);
      await chown(upper, 1234, 5678);
      await chmod(upper, 0o1751);
      await commit("local", "a");
      await prepare("b", "local");
      const [mount] = await snapshotter.mounts("b", { signal });
      const option = mount?.options.find((one) => one.startsWith("upperdir=")) ?? "";
      const { uid, gid, mode } = await stat(option.slice("upperdir=".length));
      assert.deepEqual([uid, gid, mode & 0o7777], [1234, 5678, 0o1751]);
    });

    it("carry ID maps when the plugin declares them, and own the root accordingly", async () => {
      await reopen({ remapIds: true });
      await layer("local");
      const labels = {
        "containerd.io/snapshot/uidmapping": "0:100000:65536",
        "containerd.io/snapshot/gidmapping": "0:200000:65536",
      };
      const [mount] = await prepare("container", "local", labels);
      assert.ok(mount?.options.includes("uidmap=0:100000:65536"));
      const option = mount?.options.find((one) => one.startsWith("upperdir=")) ?? "";
      const { uid, gid } = await stat(option.slice("upperdir=".length));
      assert.deepEqual([uid, gid], [100_000, 200_000]);
      const malformed = { "containerd.io/snapshot/uidmapping": "x" };
      await assert.rejects(prepare("other", "local", malformed), { code: "invalid-argument" });
    });
  });

  describe("commit", () => {
    it("calls nobody: it runs inside containerd's database transaction", async () => {
      await prepare("key");
      const before = [provider.calls.length, JSON.stringify([...containerd.counts])];
      containerd.isConnected = false;
      await commit("name", "key");
      assert.deepEqual([provider.calls.length, JSON.stringify([...containerd.counts])], before);
    });

    it("replaces the labels and frees the key", async () => {
      await prepare("key", "", { "containerd.io/snapshot/a": "1" });
      await commit("name", "key", { "containerd.io/snapshot/b": "2" });
      assert.deepEqual(
        snapshotter.stat("name").labels,
        new Map([["containerd.io/snapshot/b", "2"]]),
      );
      assert.throws(() => snapshotter.stat("key"), { code: "not-found" });
      await prepare("key");
    });

    it("is refused for what is not active, is absent, or has a taken name", async () => {
      await layer("taken");
      await view("look", "taken");
      await prepare("key");
      await assert.rejects(commit("name", "look"), { code: "failed-precondition" });
      await assert.rejects(commit("name", "absent"), { code: "not-found" });
      await assert.rejects(commit("taken", "key"), { code: "already-exists" });
      await assert.rejects(commit("", "key"), { code: "invalid-argument" });
    });

    it("takes the parent at commit only where there was none", async () => {
      await layer("a");
      await layer("b");
      await prepare("free");
      const labels = new Map<string, string>();
      await snapshotter.commit({ name: "rebased", key: "free", parent: "a", labels });
      assert.equal(snapshotter.stat("rebased").parent, "a");
      await assert.rejects(snapshotter.remove("a"), { code: "failed-precondition" });
      await prepare("bound", "a");
      await assert.rejects(
        snapshotter.commit({ name: "moved", key: "bound", parent: "b", labels }),
        { code: "invalid-argument" },
      );
    });
  });

  describe("usage", () => {
    async function upperOf(key: string): Promise<string> {
      return (await snapshotter.mounts(key, { signal }))[0]?.source ?? "";
    }

    it("counts disk blocks and inodes, hard links once", async () => {
      await prepare("key");
      const upper = await upperOf("key");
      const empty = await snapshotter.usage("key", { signal });
      assert.equal(empty.inodes, 1);
      await writeFile(join(upper, "a"), Buffer.alloc(40_000, 1));
      await link(join(upper, "a"), join(upper, "b"));
      await mkdir(join(upper, "d"));
      await writeFile(
        Buffer.concat([Buffer.from(upper), Buffer.from("/d/\xff\xfe", "latin1")]),
        "",
      );
      const used = await snapshotter.usage("key", { signal });
      assert.equal(used.inodes, 4);
      assert.ok(used.bytes >= empty.bytes + 40_000 && used.bytes < empty.bytes + 80_000);
    });

    it("of a committed snapshot is counted once, and survives a restart", async () => {
      await prepare("key");
      const upper = await upperOf("key");
      await writeFile(join(upper, "a"), Buffer.alloc(40_000, 1));
      await commit("name", "key");
      const used = await snapshotter.usage("name", { signal });
      await rm(join(upper, "a"));
      assert.deepEqual(await snapshotter.usage("name", { signal }), used);
      await reopen();
      assert.deepEqual(await snapshotter.usage("name", { signal }), used);
      assert.equal(used.inodes, 2);
    });

    it("of a claimed layer is the most that it may occupy; a view has none", async () => {
      const [base] = image("a", "b");
      await trees(base);
      await pull(base, "", "default/1/x");
      const { name } = lookUp(base, "");
      assert.deepEqual(await snapshotter.usage(name, { signal }), { bytes: 1000, inodes: 10 });
      await view("look", name);
      assert.deepEqual(await snapshotter.usage("look", { signal }), { bytes: 0, inodes: 0 });
    });
  });

  describe("remove and cleanup", () => {
    it("free the key at once and the space later", async () => {
      await layer("a");
      await layer("b", "a");
      await assert.rejects(snapshotter.remove("a"), /remove/);
      await snapshotter.remove("b");
      await snapshotter.remove("a");
      await assert.rejects(snapshotter.remove("a"), { code: "not-found" });
      const trashed = await snapshotFolders();
      assert.ok(trashed.length === 2 && trashed.every((name) => name.startsWith("trash-")));
      await layer("a");
      await snapshotter.cleanup({ signal });
      assert.deepEqual((await snapshotFolders()).length, 1);
    });

    it("release a chain again when that failed", async () => {
      const [base] = image("a", "b");
      await trees(base);
      await pull(base, "", "default/1/x");
      await snapshotter.remove(lookUp(base, "").name);
      provider.failure = new DaemonError("unavailable", "image service is away");
      await snapshotter.cleanup({ signal });
      provider.failure = undefined;
      await snapshotter.cleanup({ signal });
      assert.equal(provider.of("release").length, 2);
      await snapshotter.cleanup({ signal });
      assert.equal(provider.of("release").length, 2);
    });

    it("clear away at the start what a crash left without a record", async () => {
      await layer("kept");
      await own[Symbol.asyncDispose]();
      for (const name of ["99", "new-98", "trash-1-1"]) {
        await mkdir(join(root, "snapshots", name, "fs", "deep"), { recursive: true });
      }
      await open();
      await snapshotter.cleanup({ signal });
      assert.deepEqual(await snapshotFolders(), ["1"]);
      await prepare("next", "kept");
    });

    it("leave a snapshot alone that is being made", async () => {
      const making = Promise.all(["1", "2", "3", "4", "5", "6"].map((key) => prepare(key)));
      for (let round = 0; round < 20; round += 1) await snapshotter.cleanup({ signal });
      for (const [mount] of await making)
        assert.ok((await stat(mount?.source ?? "")).isDirectory());
    });
  });

  describe("metadata", () => {
    it("is refused where containerd would refuse it", async () => {
      await prepare("active");
      await layer("done");
      await assert.rejects(prepare("active"), { code: "already-exists" });
      await assert.rejects(view("done", ""), { code: "already-exists" });
      await assert.rejects(prepare("x", "absent"), { code: "not-found" });
      await assert.rejects(prepare("x", "active"), { code: "invalid-argument" });
      await assert.rejects(prepare(""), { code: "invalid-argument" });
      await assert.rejects(prepare("x".repeat(10_000)), { code: "invalid-argument" });
      await assert.rejects(prepare("x", "", { k: "v".repeat(4096) }), { code: "invalid-argument" });
      assert.equal(snapshotter.list([]).length, 2);
      assert.deepEqual(await snapshotFolders(), ["1", "2"]);
    });

    it("has labels that can be replaced, changed one by one, and removed", async () => {
      await prepare("key", "", { a: "1", empty: "" });
      const created = snapshotter.stat("key");
      assert.equal(created.createdNs, created.updatedNs);
      assert.deepEqual(created.labels, new Map([["a", "1"]]));
      const update = (paths: readonly string[], labels: Record<string, string>) =>
        snapshotter.update({ name: "key", paths, labels: new Map(Object.entries(labels)) });
      const added = await update(["labels.b.c"], { "b.c": "2", ignored: "x" });
      assert.deepEqual(Object.fromEntries(added.labels), { a: "1", "b.c": "2" });
      assert.ok(added.updatedNs > created.updatedNs && added.createdNs === created.createdNs);
      assert.deepEqual(Object.fromEntries((await update(["labels.a"], {})).labels), { "b.c": "2" });
      assert.deepEqual(Object.fromEntries((await update([], { z: "9" })).labels), { z: "9" });
      for (const path of ["parent", "name", "kind", "created", "labelsx"]) {
        await assert.rejects(update([path], {}), { code: "invalid-argument" });
      }
      await reopen();
      assert.deepEqual(Object.fromEntries(snapshotter.stat("key").labels), { z: "9" });
    });
  });

  describe("owner", () => {
    it("is learnt once containerd can be reached", async () => {
      containerd.failure = new DaemonError("unavailable", "starting");
      await reopen();
      await layer("early");
      containerd.failure = undefined;
      await layer("late");
      assert.equal(snapshotter.list([]).length, 2);
      await reopen();
      await layer("later");
      assert.equal(snapshotter.list([]).length, 3);
    });

    it("that changed has the old snapshots set aside, while running and at the start", async () => {
      const [base] = image("a", "b");
      await trees(base);
      await pull(base, "", "default/1/x");
      await prepare("default/2/container", lookUp(base, "").name);
      containerd.uuidNow = "uuid-2";
      containerd.isConnected = false;
      // The new containerd counts from 1 again: the same key must be free.
      await prepare("default/2/container");
      assert.deepEqual(
        snapshotter.list([]).map(({ name }) => name),
        ["default/2/container"],
      );
      containerd.uuidNow = "uuid-3";
      await reopen();
      await prepare("default/2/container");
      const aside = (await readdir(join(root, "set-aside"))).toSorted();
      assert.deepEqual(
        aside.map((name) => name.slice(0, 6)),
        ["uuid-1", "uuid-2"],
      );
      for (const folder of aside) {
        assert.deepEqual(await readdir(join(root, "set-aside", folder)), ["journal", "snapshots"]);
        assert.equal((await readdir(join(root, "set-aside", folder, "snapshots"))).length, 1);
      }
    });

    it("that cannot be told apart is nobody's problem", async () => {
      await reopen({ containerd: undefined });
      await layer("a");
      assert.equal(snapshotter.list([]).length, 1);
    });
  });

  it("refuses a root that overlay options cannot name, and a damaged journal", async () => {
    const options = { provider, containerd, clock: systemClock, log: silentLogger };
    await assert.rejects(Snapshotter.open({ ...options, root: "/tmp/a:b" }), {
      code: "invalid-argument",
    });
    await own[Symbol.asyncDispose]();
    await writeFile(join(root, "metastore", "journal"), "nonsense");
    await assert.rejects(Snapshotter.open({ ...options, root }), { code: "data-loss" });
    await rm(join(root, "metastore", "journal"));
    await open();
  });
});
