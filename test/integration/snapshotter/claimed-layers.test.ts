/** Claimed layers: what containerd does around the call, and its traps (peers' failed pulls). */
import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import { LABEL_PARENT_CHAIN_ID, LABEL_SNAPSHOT_REF } from "../../../src/snapshotter/labels.ts";
import { needs } from "../../support/lab/index.ts";
import { provided } from "../../support/snapshotter/fake-provider.ts";
import { SnapshotterBench } from "../../support/snapshotter/snapshotter-bench.ts";

const { signal } = new AbortController();

describe("claimed layers", () => {
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

  it("commit inside Prepare, with the label and the exact parent that containerd looks for", async () => {
    const [base, top] = bench.image("a", "b");
    await bench.trees(base, top);
    assert.equal(await bench.pull(base, "", "default/1/extract-1 x"), "claimed");
    const { name } = bench.lookUp(base, "");
    assert.equal(await bench.pull(top, name, "default/2/extract-2 y"), "claimed");
    assert.equal(bench.lookUp(top, name).parent, name);
    assert.deepEqual(bench.snapshotter.claimedChains(), [base, top]);
    // Nothing of a claim is on this disk, and no active snapshot is left behind.
    assert.deepEqual(await bench.snapshotFolders(), []);
    assert.equal(bench.snapshotter.list(["kind==active"]).length, 0);
  });

  it("never happen without a wanted snapshot, nor for a View", async () => {
    const [base] = bench.image("a", "b");
    await bench.trees(base);
    const mounts = await bench.prepare(`default/1/extract-1 ${base}`);
    assert.equal(mounts[0]?.type, "bind");
    const labels = new Map([[LABEL_SNAPSHOT_REF, base]]);
    const input = { key: "default/2/v", parent: "", labels, namespace: "" };
    assert.equal((await bench.snapshotter.view(input, { signal }))[0]?.type, "bind");
  });

  it("ignore a wanted snapshot that is no digest", async () => {
    const mounts = await bench.prepare("k", "", { [LABEL_SNAPSHOT_REF]: "something" });
    assert.equal(mounts[0]?.type, "bind");
  });

  it("ensure the image once, and claim later layers in their own Prepare", async () => {
    const [base, top] = bench.image("a", "b");
    bench.provider.onEnsure = async () => {
      await bench.trees(base, top);
      return [base, top].map(provided);
    };
    assert.equal(await bench.pull(base, "", "default/1/x"), "claimed");
    assert.deepEqual(bench.snapshotter.claimedChains(), [base]);
    assert.equal(await bench.pull(top, bench.lookUp(base, "").name, "default/2/x"), "claimed");
    assert.equal(bench.provider.of("ensure").length, 1);
  });

  it("have a name for each parent: two namespaces' own copies of a base do not collide", async () => {
    const [base, top] = bench.image("a", "b");
    await bench.trees(top);
    await bench.layer(`n1/7/${base}`);
    await bench.layer(`n2/3/${base}`);
    assert.equal(await bench.pull(top, `n1/7/${base}`, "n1/8/x"), "claimed");
    assert.equal(await bench.pull(top, `n2/3/${base}`, "n2/4/x"), "claimed");
    const first = bench.lookUp(top, `n1/7/${base}`).name;
    const second = bench.lookUp(top, `n2/3/${base}`).name;
    assert.notEqual(first, second);
    // The chain's mount covers the local base too.
    const [mount] = await bench.prepare("n1/9/container", first);
    const folder = bench.provider.known.get(top) ?? "";
    assert.ok(mount?.options.includes(`lowerdir=${folder}`));
    // It is released when the last of both is gone.
    await bench.snapshotter.remove("n1/9/container");
    await bench.snapshotter.remove(first);
    await bench.snapshotter.cleanup({ signal });
    assert.equal(bench.provider.of("release").length, 0);
    await bench.snapshotter.remove(second);
    await bench.snapshotter.cleanup({ signal });
    assert.deepEqual(
      bench.provider.of("release").map(({ chainId }) => chainId),
      [top],
    );
  });

  it("are answered from the metastore when they are there, and get a lost label back", async () => {
    const [base] = bench.image("a", "b");
    await bench.trees(base);
    await bench.pull(base, "", "default/1/x");
    const { name } = bench.lookUp(base, "");
    bench.provider.failure = new DaemonError("unavailable", "image service is away");
    await bench.snapshotter.update({ name, labels: new Map(), paths: [] });
    assert.equal(await bench.pull(base, "", "default/2/x"), "claimed");
    assert.equal(bench.lookUp(base, "").name, name);
  });

  it("of the same layer at the same time agree", async () => {
    const [base] = bench.image("a", "b");
    await bench.trees(base);
    const pulls = ["1", "2", "3", "4"].map((n) => bench.pull(base, "", `default/${n}/x`));
    assert.deepEqual(
      await Promise.all(pulls),
      pulls.map(() => "claimed"),
    );
    assert.equal(bench.snapshotter.list([]).length, 1);
  });

  it("survive a cancelled Prepare: the retry joins the work", async () => {
    const [base, top] = bench.image("a", "b");
    let finish = (): void => undefined;
    const work = new Promise<void>((resolve) => {
      finish = resolve;
    });
    bench.provider.onEnsure = async () => {
      await work;
      return [base, top].map(provided);
    };
    const first = new AbortController();
    const labels = new Map([[LABEL_SNAPSHOT_REF, base]]);
    const input = { key: "default/1/x", parent: "", labels, namespace: "default" };
    const cancelled = bench.snapshotter.prepare(input, { signal: first.signal });
    while (bench.provider.of("ensure").length === 0) await new Promise(setImmediate);
    first.abort();
    await assert.rejects(cancelled, { code: "canceled" });
    const retry = bench.pull(base, "", "default/2/x");
    while (bench.provider.of("ensure").length === 1) await new Promise(setImmediate);
    finish();
    assert.equal(await retry, "claimed");
    assert.equal(bench.snapshotter.list([]).length, 1);
  });

  it("are not made for upper layers that parallel unpack prepares without a parent", async () => {
    const [base, top] = bench.image("a", "b");
    await bench.trees(top);
    const labels = { [LABEL_SNAPSHOT_REF]: top, [LABEL_PARENT_CHAIN_ID]: base };
    assert.equal((await bench.prepare("default/1/x", "", labels))[0]?.type, "bind");
  });

  it("wait until the image service knows what is claimed already", async () => {
    const [base] = bench.image("a", "b");
    await bench.trees(base);
    bench.provider.failure = new DaemonError("unavailable", "image service is away");
    await bench.reopen();
    assert.notEqual(await bench.pull(base, "", "default/1/x"), "claimed");
    bench.provider.failure = undefined;
    assert.equal(await bench.pull(base, "", "default/2/x"), "claimed");
    const retained = bench.provider.of("retain");
    assert.deepEqual(retained.at(-1)?.chainIds, []);
    await bench.reopen();
    while (bench.provider.of("retain").length === retained.length) await new Promise(setImmediate);
    assert.deepEqual(bench.provider.of("retain").at(-1)?.chainIds, [base]);
  });
});
