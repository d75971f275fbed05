/** Chains: images that share layers, snapshots on every chain ID, pulls that end half-way. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  Front,
  Lab,
  SNAPSHOTTER,
  eventually,
  imageFacts,
  labImage,
  needs,
  run,
  startStack,
  unmountUnder,
  viewSnapshot,
  workOf,
  type Stack,
} from "../support/lab/index.ts";

const OPTIONS = { snapshotter: SNAPSHOTTER };
const SNAPSHOTS = ["snapshots", "--snapshotter", SNAPSHOTTER];

describe("A chain of claimed layers", function () {
  this.timeout(120_000);
  let lab: Lab;
  let stack: Stack;

  before(async function () {
    const images = ["node", "debian", "edge", "pg"] as const;
    needs(this, { root: true, fuse: true, program: true, containerd: ["2"], images });
    lab = await Lab.create();
    stack = await startStack(lab);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  it("runs the base after the image built on it is removed and everything restarted", async () => {
    const { containerd, daemon, registry } = stack;
    const [image, base] = [registry.reference("node"), registry.reference("debian")];
    await containerd.pull(image, OPTIONS);
    const mark = await registry.mark();
    await containerd.pull(base, OPTIONS);
    const layers = new Set(labImage("debian").layers.map((layer) => layer.digest));
    const asked = (await registry.entries(mark)).filter((entry) => layers.has(entry.blob ?? ""));
    assert.deepEqual(asked, [], "the base's layer was claimed before");

    await containerd.ctr(["image", "rm", "--sync", image]);
    await containerd.stop();
    await daemon.stop();
    await daemon.restart();
    await containerd.start();

    const ran = await containerd.runContainer(base, ["/bin/ls", "/"], OPTIONS);
    assert.match(ran.stdout, /^usr$/m);
  });

  it("gives View, Prepare and Commit on every chain ID of an image", async () => {
    const { containerd, registry } = stack;
    await containerd.pull(registry.reference("edge"), OPTIONS);
    const { chainIds } = await imageFacts(registry, "edge");
    assert.equal(chainIds.length, 6);

    for (const [at, chainId] of chainIds.entries()) {
      const folder = await lab.makeFolder("s");
      const [view, active, committed, top] = ["view", "active", "committed", "top"].map(
        (name) => `${name}-${at}`,
      ) as [string, string, string, string];
      const mount = async (key: string): Promise<void> => {
        const { stdout } = await containerd.ctr([...SNAPSHOTS, "mounts", folder, key]);
        await run("sh", ["-ec", stdout]);
      };

      await viewSnapshot(containerd, SNAPSHOTTER, view, chainId);
      await mount(view);
      await run("test", ["-x", join(folder, "bin/ls")]);
      await assert.rejects(writeFile(join(folder, "new"), ""), { code: "EROFS" });
      await unmountUnder(folder);

      await containerd.ctr([...SNAPSHOTS, "prepare", active, chainId]);
      await mount(active);
      await writeFile(join(folder, "new"), chainId);
      await unmountUnder(folder);
      await containerd.ctr([...SNAPSHOTS, "commit", committed, active]);

      await viewSnapshot(containerd, SNAPSHOTTER, top, committed);
      await mount(top);
      assert.equal(await readFile(join(folder, "new"), "utf8"), chainId);
      await run("test", ["-x", join(folder, "bin/ls")]);
      await unmountUnder(folder);
      for (const key of [top, committed, view]) await containerd.ctr([...SNAPSHOTS, "rm", key]);
    }
  });

  it("is made by a retry after a pull was cancelled while its maps were made", async () => {
    const { containerd, registry } = stack;
    const front = await Front.start(lab, registry.address);
    const reference = front.reference("pg");
    const layers = labImage("pg").layers.map((layer) => layer.digest);
    const isLayer = (path: string): boolean => layers.some((digest) => path.endsWith(digest));
    front.setRule(({ path }) => (isLayer(path) ? "hold" : "pass"));
    const cancel = new AbortController();
    const cancelled = containerd.pull(reference, {
      ...OPTIONS,
      signal: cancel.signal,
      allowFailure: true,
    });
    await eventually("a layer is being fetched", () => front.heldCount > 0);

    cancel.abort();
    assert.notEqual((await cancelled).status, 0);
    front.release();
    await containerd.pull(reference, OPTIONS);

    const { command, prints } = workOf("pg");
    assert.match((await containerd.runContainer(reference, command, OPTIONS)).stdout, prints);
    const { stdout } = await containerd.ctr(["content", "ls", "--quiet"]);
    assert.deepEqual(
      layers.filter((digest) => stdout.includes(digest)),
      [],
      "a layer fell through to containerd",
    );
  });
});
