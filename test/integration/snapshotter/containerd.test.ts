/** A real containerd with our server as its proxy plugin; the image provider is the test's. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { Scope } from "../../../src/base/scope.ts";
import type { ChainId } from "../../../src/oci/index.ts";
import { ContainerdClient } from "../../../src/snapshotter/index.ts";
import {
  Containerd,
  Lab,
  containerdProtoFolder,
  needs,
  pullByRef,
  Registry,
  run,
} from "../../support/lab/index.ts";
import type { ContainerdLine } from "../../support/lab/index.ts";
import { startDaemon } from "../../support/snapshotter/daemon.ts";
import type { TestDaemon } from "../../support/snapshotter/daemon.ts";
import { provided } from "../../support/snapshotter/fake-provider.ts";
import { makeSmallImage } from "../../support/snapshotter/small-image.ts";
import type { SmallImage } from "../../support/snapshotter/small-image.ts";

const TOOLS = ["skopeo", "docker-registry", "runc", "busybox"];
const NAME = "mine";
const SHOW = ["/bin/sh", "-c", "cat /etc/motd /top; ls /old; echo new > /top; cat /top"];
const SHOWN = "two\nthree\nnew\n";

interface Stack extends TestDaemon {
  readonly containerd: Containerd;
  readonly registry: Registry;
  readonly image: SmallImage;
  /** host:port/repository:1 */
  readonly reference: string;
  readonly client: ContainerdClient;
}

/** `known` is what the daemon is told of registries: the port is lost in containerd's labels. */
async function startStack(lab: Lab, line: ContainerdLine): Promise<Stack> {
  const scope = new Scope();
  lab.defer(() => scope[Symbol.asyncDispose]());
  const folder = await lab.makeFolder("s");
  const certs = join(folder, "certs.d");
  const registry = await Registry.start(lab, { storage: "empty" });
  await mkdir(join(certs, `${registry.address.replace(":", "_")}_`), { recursive: true });
  const image = await makeSmallImage(await lab.makeFolder("image"));
  const reference = registry.reference("small");
  const source = `oci:${image.layout}:1`;
  await run("skopeo", ["copy", "--dest-tls-verify=false", source, `docker://${reference}`]);
  // Where the lab puts containerd is known only when it runs.
  const socket = lab.path("ctd.sock");
  const client = scope.use(new ContainerdClient(socket, { clock: systemClock }));
  const overrides = { certsFolders: [certs, join(folder, "none")] };
  const daemon = await startDaemon(scope, { folder, containerd: client, overrides });
  const containerd = await Containerd.start(lab, {
    line,
    snapshotter: { name: NAME, address: daemon.address, root: daemon.root },
    criSnapshotter: false,
  });
  await symlink(containerd.address, socket);
  return Object.assign(daemon, { containerd, registry, image, reference, client });
}

/** As an image service would: all layers of an image it can reach, mounted as plain folders. */
function claimAll({ provider, image }: Stack): void {
  provider.onEnsure = () => {
    for (const [chain, tree] of image.trees) provider.known.set(chain, tree);
    return Promise.resolve(image.chainIds.map((chain) => provided(chain)));
  };
}

function claimed(stack: Stack): ChainId[] {
  return stack.snapshotter.claimedChains().toSorted();
}

async function blobs(stack: Stack): Promise<string[]> {
  const { stdout } = await stack.containerd.ctr(["content", "ls", "-q"]);
  return stdout.split("\n").filter((line) => stack.image.layerDigests.includes(line));
}

async function removeImage(stack: Stack, name: string, namespace = "default"): Promise<void> {
  await stack.containerd.ctr(["--namespace", namespace, "image", "rm", "--sync", name]);
}

describe("snapshotter behind containerd 1.6", function () {
  this.timeout(90_000);
  let lab: Lab;
  let stack: Stack;

  before(function () {
    needs(this, { root: true, commands: TOOLS, containerd: ["1.6"] });
  });

  beforeEach(async () => {
    lab = await Lab.create();
    stack = await startStack(lab, "1.6");
  });

  afterEach(async () => {
    await lab[Symbol.asyncDispose]();
  });

  it("imports, runs and removes an image as a plain overlay snapshotter", async () => {
    const { containerd, image, snapshotter, root, provider } = stack;
    const archive = lab.path("small.tar");
    await run("tar", ["-C", image.layout, "-cf", archive, "."]);
    await containerd.ctr(["image", "import", "--snapshotter", NAME, archive]);
    const name = "example.com/small:1";
    const { stdout } = await containerd.runContainer(name, SHOW, { snapshotter: NAME });
    assert.equal(stdout, SHOWN);
    assert.equal(provider.of("ensure").length, 0);
    const usage = await containerd.ctr(["snapshots", "--snapshotter", NAME, "usage"]);
    assert.equal(usage.stdout.trim().split("\n").length, 1 + image.chainIds.length);
    await removeImage(stack, name);
    assert.deepEqual(snapshotter.list([]), []);
    await snapshotter.cleanup({ signal: new AbortController().signal });
    assert.deepEqual(await readdir(join(root, "snapshots")), []);
  });

  it("pulls as usual when the provider cannot serve the image", async () => {
    const { containerd, reference, provider } = stack;
    await containerd.pull(reference, { snapshotter: NAME });
    const { stdout } = await containerd.runContainer(reference, SHOW, { snapshotter: NAME });
    assert.equal(stdout, SHOWN);
    assert.equal(provider.of("mount").length, 0);
  });

  describe("with a client that passes only snapshot.ref", () => {
    before(function () {
      needs(this, { files: [containerdProtoFolder] });
    });

    it("claims every layer, fetches no blob, and runs the container", async () => {
      claimAll(stack);
      const { containerd, reference, provider, registry, image } = stack;
      const pulled = await pullByRef(lab, containerd.address, reference, NAME);
      assert.equal(pulled.claimed, image.chainIds.length);
      assert.deepEqual(await blobs(stack), []);
      const [ensured, ...others] = provider.of("ensure");
      assert.ok(ensured !== undefined && others.length === 0);
      // The port comes back from certs.d: containerd's label has the bare host.
      assert.ok(ensured.image.reference.startsWith(`${registry.address}/small@sha256:`));
      assert.deepEqual(ensured.image.alternatives, ["127.0.0.1/small"]);
      assert.ok((ensured.image.manifest?.length ?? 0) > 0 && ensured.image.config !== undefined);
      await registry.stop();
      const { stdout } = await containerd.runContainer(reference, SHOW, { snapshotter: NAME });
      assert.equal(stdout, SHOWN);
    });

    it("releases the chains when the image is removed", async () => {
      claimAll(stack);
      const { containerd, reference, provider, image } = stack;
      await pullByRef(lab, containerd.address, reference, NAME);
      assert.deepEqual(claimed(stack), image.chainIds.toSorted());
      await removeImage(stack, reference);
      assert.deepEqual(claimed(stack), []);
      const released = provider.of("release").map(({ chainId }) => chainId);
      assert.deepEqual(released.toSorted(), image.chainIds.toSorted());
    });

    it("unpacks everything when the provider cannot serve the image, and asks it once", async () => {
      const { containerd, reference, provider, image } = stack;
      const pulled = await pullByRef(lab, containerd.address, reference, NAME);
      assert.equal(pulled.unpacked, image.chainIds.length);
      assert.equal(provider.of("ensure").length, 1);
      const { stdout } = await containerd.runContainer(reference, SHOW, { snapshotter: NAME });
      assert.equal(stdout, SHOWN);
    });

    it("claims above a base that was unpacked; the chain's mount covers that too", async () => {
      const { containerd, reference, provider, image } = stack;
      const [base = "", ...above] = image.chainIds;
      for (const chain of above) provider.known.set(chain, image.trees.get(chain) ?? "");
      const pulled = await pullByRef(lab, containerd.address, reference, NAME);
      assert.deepEqual([pulled.unpacked, pulled.claimed], [1, above.length]);
      assert.ok(!claimed(stack).some((chain) => chain === base));
      const { stdout } = await containerd.runContainer(reference, SHOW, { snapshotter: NAME });
      assert.equal(stdout, SHOWN);
    });

    it("commits a container's changes on top of a claimed image", async () => {
      claimAll(stack);
      const { containerd, reference, image, snapshotter } = stack;
      await pullByRef(lab, containerd.address, reference, NAME);
      const top = image.chainIds.at(-1) ?? "";
      const snapshots = ["snapshots", "--snapshotter", NAME];
      await containerd.ctr([...snapshots, "prepare", "changed", top]);
      await containerd.ctr([...snapshots, "commit", "result", "changed"]);
      await containerd.ctr([...snapshots, "view", "look", "result"]);
      const view = snapshotter.list([`kind==view`]).at(0)?.name ?? "";
      const [mount] = await snapshotter.mounts(view, { signal: new AbortController().signal });
      const lower = mount?.options.find((option) => option.startsWith("lowerdir=")) ?? "";
      // The local layer, and one folder for the three claimed ones.
      assert.equal(lower.split(":").length, 2);
    });

    it("mounts again after a restart, without containerd's or the registry's help", async () => {
      claimAll(stack);
      const { containerd, reference, provider, registry, image, root } = stack;
      await pullByRef(lab, containerd.address, reference, NAME);
      await registry.stop();
      await stack[Symbol.asyncDispose]();
      const scope = new Scope();
      lab.defer(() => scope[Symbol.asyncDispose]());
      const folder = join(root, "..");
      const second = await startDaemon(scope, { folder, containerd: stack.client });
      for (const [chain, tree] of image.trees) second.provider.known.set(chain, tree);
      const { stdout } = await containerd.runContainer(reference, SHOW, { snapshotter: NAME });
      assert.equal(stdout, SHOWN);
      assert.deepEqual(second.provider.of("ensure"), []);
      assert.deepEqual(
        second.provider.of("retain").map(({ chainIds }) => chainIds.toSorted()),
        [image.chainIds.toSorted()],
      );
      assert.equal(provider.of("ensure").length, 1);
    });

    it("sets the old snapshots aside when containerd was wiped", async () => {
      claimAll(stack);
      const { containerd, reference, image, root, snapshotter } = stack;
      await pullByRef(lab, containerd.address, reference, NAME);
      const keys = snapshotter.list([]).length;
      assert.equal(keys, image.chainIds.length);
      await containerd.stop();
      await run("sh", ["-c", `rm -rf '${containerd.folder}/root' '${containerd.folder}/state'`]);
      await containerd.start();
      // Everything is pulled anew; without the setting aside the keys of both would collide.
      stack.provider.onEnsure = () => Promise.reject(new Error("not any more"));
      stack.provider.known.clear();
      const again = await pullByRef(lab, containerd.address, reference, NAME);
      assert.equal(again.unpacked, image.chainIds.length);
      const { stdout } = await containerd.runContainer(reference, SHOW, { snapshotter: NAME });
      assert.equal(stdout, SHOWN);
      const [aside] = await readdir(join(root, "set-aside"));
      const journal = await readFile(join(root, "set-aside", aside ?? "", "journal"));
      assert.ok(journal.includes("claimed/"));
      assert.deepEqual(claimed(stack), []);
      assert.equal(stack.provider.of("retain").at(-1)?.chainIds.length, 0);
    });
  });

  it("answers at once while containerd is away, and lists nothing", async () => {
    const { containerd, snapshotter } = stack;
    await containerd.stop();
    const { signal } = new AbortController();
    const created = await snapshotter.prepare(
      { key: "default/1/a", parent: "", labels: new Map(), namespace: "default" },
      { signal },
    );
    assert.equal(created[0]?.type, "bind");
    await snapshotter.remove("default/1/a");
    assert.deepEqual(snapshotter.list([]), []);
  });
});

describe("snapshotter behind containerd 2", function () {
  this.timeout(90_000);

  before(function () {
    needs(this, { root: true, commands: TOOLS, containerd: ["2"] });
  });

  it("claims what ctr pulls through the transfer service, by the labels that it passes", async () => {
    const lab = await Lab.create();
    try {
      const stack = await startStack(lab, "2");
      claimAll(stack);
      const { containerd, reference, provider, image, registry } = stack;
      await containerd.pull(reference, { snapshotter: NAME });
      assert.deepEqual(claimed(stack), image.chainIds.toSorted());
      assert.deepEqual(await blobs(stack), []);
      const [ensured, ...others] = provider.of("ensure");
      assert.ok(ensured !== undefined && others.length === 0);
      assert.equal(ensured.image.reference, reference);
      assert.ok(ensured.image.manifest !== undefined && ensured.image.config !== undefined);
      await registry.stop();
      const { stdout } = await containerd.runContainer(reference, SHOW, { snapshotter: NAME });
      assert.equal(stdout, SHOWN);
    } finally {
      await lab[Symbol.asyncDispose]();
    }
  });
});
