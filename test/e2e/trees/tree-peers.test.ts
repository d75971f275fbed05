/**
 * Nodes that cannot work together say why: `faasnet peers` names the reason, on both sides. And
 * what others get from a node's caches: everything with the key or over loopback, nothing without.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { Lab, eventually, labImage, needs, run, type RunResult } from "../../support/lab/index.ts";
import {
  TreeLab,
  skewClock,
  type PeerSettings,
  type TreeNode,
} from "../../support/tree-lab/index.ts";

const COMMANDS = ["ip", "tc", "iptables-restore", "docker-registry", "runc", "curl"];
/** Findings need some rounds of probes; streams are tried only every half minute (push/pull). */
const FOUND_TIMEOUT_MS = 150_000;
const IMAGE = "busybox";

interface ManifestText {
  readonly manifests?: readonly { readonly digest: string }[];
  readonly config?: { readonly digest: string };
  readonly rootfs?: object;
}

describe("Nodes that something keeps apart", function () {
  this.timeout(400_000);
  let lab: Lab;
  let tree: TreeLab;
  let good: TreeNode;
  let odd: TreeNode;
  let settings: PeerSettings;

  before(async function () {
    const images = [IMAGE] as const;
    needs(this, { root: true, fuse: true, program: true, commands: COMMANDS, images });
    lab = await Lab.create();
    tree = await TreeLab.create(lab, { nodes: 3 });
    [good, odd] = [tree.node(0), tree.node(2)];
    settings = odd.peer;
    await tree.start([good, tree.node(1)]);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  afterEach(async () => {
    await tree.network.heal();
    if (odd.isRunning) await odd.stop();
    odd.configure({ peer: settings, env: {} });
  });

  /** Waits until the node's report has one of the problems; `who` is a part of whom it names. */
  async function finds(node: TreeNode, kinds: readonly string[], who: string): Promise<void> {
    let seen = "";
    await eventually(
      `${node.name} finds ${kinds.join(" or ")} of ${who}`,
      async () => {
        const { problems } = await node.peers();
        seen = problems.map(({ kind, who: whom }) => `${kind} ${whom}`).join(", ");
        return problems.some(
          (problem) => kinds.includes(problem.kind) && problem.who.includes(who),
        );
      },
      { timeoutMs: FOUND_TIMEOUT_MS, everyMs: 500 },
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}; it found: ${seen}`);
    });
  }

  it("say that a key is wrong", async () => {
    const keyFile = lab.path("other.key");
    await writeFile(keyFile, `${randomBytes(32).toString("base64")}\n`, { mode: 0o600 });
    odd.configure({ peer: { ...settings, keyFile } });
    await odd.start();

    const kinds = ["wrong-key", "key-unknown-there"];
    await finds(good, kinds, odd.host.address);
    await finds(odd, kinds, good.host.address);
    const { members } = await good.peers();
    assert.deepEqual(members.map(({ name }) => name).sort(), ["n1", "n2"]);
    assert.match((await good.cli(["peers"])).stdout, /^(wrong key|our key is unknown there): /m);
  });

  it("say that a clock is wrong", async () => {
    skewClock(odd, 3_600_000);
    await odd.start();

    await finds(good, ["clock-skew"], odd.name);
    await finds(odd, ["clock-skew"], good.name);
  });

  for (const protocol of ["udp", "tcp"] as const) {
    it(`say that ${protocol.toUpperCase()} does not get through`, async () => {
      await odd.start();
      await tree.untilMembers();
      await tree.network.block(odd.index, protocol);

      await finds(good, [`${protocol}-blocked`], odd.name);
      await finds(odd, [`${protocol}-blocked`], good.name);
    });
  }

  it("say that two have one name", async () => {
    odd.configure({ peer: { ...settings, name: tree.node(1).name } });
    await odd.start();

    await finds(good, ["duplicate-name"], tree.node(1).name);
    await finds(odd, ["duplicate-name"], tree.node(1).name);
  });

  describe("and clients", () => {
    const layer = () => labImage(IMAGE).layers[0]?.digest ?? "";
    const blobPath = () => `/v2/${IMAGE}/blobs/${layer()}?ns=${tree.registry.address}`;

    before(async () => {
      const reference = tree.registry.reference(IMAGE);
      await good.mount(IMAGE, reference);
      await good.cli(["fetch", "--wait", reference]);
    });

    async function inside(node: TreeNode, ...command: readonly string[]): Promise<RunResult> {
      const [enter = "", ...args] = [...node.host.wrapper, ...command];
      return run(enter, args, { allowFailure: true });
    }

    it("read blobs over loopback, as `faasnet peers mirror` says", async () => {
      const { stdout } = await good.cli(["peers", "mirror"]);
      const [, url = ""] = /\[host\."(http:[^"]+)"\]/.exec(stdout) ?? [];

      const got = await inside(good, "curl", "-sf", "-o", lab.path("blob"), `${url}${blobPath()}`);

      assert.equal(got.status, 0, got.stderr);
      assert.equal((await readFile(lab.path("blob"))).length, labImage(IMAGE).layers[0]?.size);
    });

    it("read blobs elsewhere with a certificate of `faasnet peers cert`, and not without", async () => {
      const folder = lab.path("certs");
      await good.cli(["peers", "cert", "--out", folder]);
      const url = `https://${good.exchangeAddress}${blobPath()}`;
      const ask = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"];
      const trust = [...ask, `${folder}/ca.crt`, "-m", "5"];
      const own = ["--cert", `${folder}/client.cert`, "--key", `${folder}/client.key`];

      const withIt = await inside(tree.node(1), ...trust, ...own, "-k", url);
      const without = await inside(tree.node(1), ...trust, "-k", url);

      assert.equal(withIt.stdout, "200", withIt.stderr);
      assert.equal(without.stdout, "000");
      assert.notEqual(without.status, 0);
    });

    /** A manifest, the one of this machine's platform in an index, or a config. */
    async function document(node: TreeNode, path: string): Promise<ManifestText> {
      const url = `http://127.0.0.1:7948/v2/${IMAGE}/${path}?ns=${tree.registry.address}`;
      const { status, stdout, stderr } = await inside(node, "curl", "-sf", "-m", "20", url);
      assert.equal(status, 0, `${path}: ${stderr}`);
      return JSON.parse(stdout) as ManifestText;
    }

    /** As containerd does: the tag, the manifest, its config. */
    async function pullDocuments(node: TreeNode): Promise<void> {
      const top = await document(node, "manifests/1");
      const { config } = top.config === undefined ? await platformOf(node, top) : top;
      const { rootfs } = await document(node, `blobs/${config?.digest ?? ""}`);
      assert.ok(rootfs !== undefined);
    }

    async function platformOf(node: TreeNode, index: ManifestText): Promise<ManifestText> {
      const [first] = index.manifests ?? [];
      return document(node, `manifests/${first?.digest ?? ""}`);
    }

    it("read manifests and configs of all images, with one request for the cluster", async () => {
      const mark = await tree.registry.mark();
      await Promise.all([good, tree.node(1)].map(pullDocuments));
      await pullDocuments(good);

      const asked = (await tree.registry.entries(mark)).map(({ path }) => path);
      assert.equal(new Set(asked).size, asked.length, asked.join(" "));
    });

    it("start an image on a node that has nothing while the registry is down", async () => {
      await odd.wipeRoot();
      await odd.start();
      await tree.untilMembers();
      await tree.registry.stop();

      try {
        await pullDocuments(odd);
        const mount = await odd.mount(IMAGE, tree.registry.reference(IMAGE));
        const { stdout } = await odd.run(mount, ["/bin/sh", "-c", "echo started"]);
        assert.equal(stdout, "started\n");
      } finally {
        await tree.registry.start();
      }
    });
  });
});
