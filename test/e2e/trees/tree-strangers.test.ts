/**
 * Somebody without the cluster's key, in a namespace of its own beside nodes that work: it joins
 * nothing, reads nothing, learns nothing and stops nobody, whatever it sends; nor do packets that
 * members sent, sent again by it in their names: to the same node, to others, and to one that was
 * started again since.
 */
import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Lab,
  Registry,
  eventually,
  expectedTree,
  labImage,
  needs,
  pssOf,
  run,
} from "../../support/lab/index.ts";
import {
  PacketTape,
  TreeLab,
  hardwareOf,
  parseReadLog,
  payloadOf,
  readdressed,
  readerProgram,
  runStranger,
  sendFrames,
  sourceOf,
  targetOf,
  writeFileList,
  type FileList,
  type Frame,
  type Host,
  type StrangerResult,
  type TreeNode,
} from "../../support/tree-lab/index.ts";

const COMMANDS = ["ip", "tc", "iptables-restore", "docker-registry", "runc", "gcc", "openssl"];
const IMAGE = "debian";
const NODES = 3;
const SECONDS = Number(process.env["FAASNET_TREE_SECONDS"] ?? 60);
const GOSSIP_PORT = 7946;
const EXCHANGE_PORT = 7947;
/** What only members know: it stands in every packet that names a member. */
const ZONE = "zone-of-members-alone";
/** Traffic of members that is recorded first, ms. */
const RECORDED_MS = 5000;
/** What a node may keep of what strangers do, bytes: handshakes under way, buffers, counters. */
const MEMORY_BYTES_MAX = 150_000_000;
const MB = 1_000_000;

describe("Nodes on a network with a stranger", function () {
  this.timeout(SECONDS * 1000 + 600_000);
  let lab: Lab;
  let tree: TreeLab;
  let nodes: readonly TreeNode[];
  let stranger: Host;
  let list: FileList;
  let reader: string;
  let tape: PacketTape;
  let selfSigned: { readonly cert: string; readonly key: string };

  before(async function () {
    const images = [IMAGE] as const;
    needs(this, { root: true, fuse: true, program: true, commands: COMMANDS, images });
    lab = await Lab.create();
    tree = await TreeLab.create(lab, { nodes: NODES + 1, zoneOf: () => ZONE });
    nodes = tree.nodes.slice(0, NODES);
    stranger = tree.node(NODES).host;
    const oracle = await expectedTree(lab, await Registry.start(lab), IMAGE);
    const choice = { from: 20_000, to: 2_000_000, totalBytes: 12_000_000, seed: 5 };
    list = await writeFileList(lab, oracle, choice);
    reader = await readerProgram();
    selfSigned = await makeSelfSigned();
    tape = await PacketTape.start(lab, tree.network.cableOf(1), GOSSIP_PORT);
    await tree.start(nodes);
    await tree.untilMembers();
    await readAll();
    await sleep(RECORDED_MS);
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  async function makeSelfSigned(): Promise<{ readonly cert: string; readonly key: string }> {
    const [cert, key] = [lab.path("self.crt"), lab.path("self.key")];
    const make = ["req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=n1"];
    const names = ["-addext", "subjectAltName=URI:faasnet:member:n1"];
    await run("openssl", [...make, ...names, "-keyout", key, "-out", cert]);
    return { cert: await readFile(cert, "utf8"), key: await readFile(key, "utf8") };
  }

  /** Every node reads the list through the tree, then forgets it. */
  async function readAll(): Promise<void> {
    const each = nodes.map(async (node) => {
      const mount = await node.mount(IMAGE, tree.registry.reference(IMAGE));
      const options = { binds: [reader, list.file], timeoutMs: 180_000 };
      const { stdout } = await node.run(mount, [reader, list.file], options);
      return { node, mount, log: parseReadLog(stdout) };
    });
    for (const { node, mount, log } of await Promise.all(each)) {
      assert.deepEqual(log.errors, [], node.name);
      assert.deepEqual(log.digests, list.digests, node.name);
      await node.release(mount);
      await node.clearCache();
    }
  }

  async function pidsOf(): Promise<readonly string[]> {
    const each = nodes.map(async (node) => [...(await node.roles())].map(String).sort().join(" "));
    return Promise.all(each);
  }

  async function memory(): Promise<readonly number[]> {
    const each = nodes.map(async (node) => pssOf((await node.roles()).get("image-service") ?? 0));
    return Promise.all(each);
  }

  async function refused(node: TreeNode, reason: string): Promise<number> {
    return (await node.peers()).refused[reason] ?? 0;
  }

  async function assertMembers(): Promise<void> {
    const names = nodes.map(({ name }) => name);
    const addresses = nodes.map(({ gossipAddress }) => gossipAddress);
    for (const node of nodes) {
      const { members } = await node.peers();
      assert.deepEqual(
        members.map(({ name }) => name),
        names,
        node.name,
      );
      assert.deepEqual(
        members.map(({ address }) => address),
        addresses,
        node.name,
      );
      assert.ok(
        members.every(({ state }) => state === "alive"),
        node.name,
      );
    }
  }

  async function attack(): Promise<StrangerResult> {
    const [layer = ""] = (await readdir(join(nodes[0]?.root ?? "", "layers")))
      .filter((name) => name.endsWith(".map"))
      .map((name) => name.slice(0, -".map".length));
    const { digest, layers } = labImage(IMAGE);
    const blob = layers[0]?.digest ?? "";
    const request = {
      ...{ image: digest, epoch: { counter: 1, manager: "n1" }, path: ["n1"], layer, blob },
      ...{ priority: 0, blocks: [[0, 0, 1_000_000]] },
    };
    const own = ["blocks", `maps/${layer}?image=${digest}&path=n1`, `order/${digest}?from=0`];
    const registry = tree.registry.address;
    return runStranger(lab, stranger, {
      targets: nodes.map(({ host }) => ({
        ...{ host: host.address, gossipPort: GOSSIP_PORT, exchangePort: EXCHANGE_PORT },
      })),
      seconds: SECONDS,
      paths: [
        ...[...own, "view", "probe"].map((resource) => `/faasnet/1/${resource}`),
        ...["", `${IMAGE}/manifests/1?ns=${registry}`, `${IMAGE}/blobs/${blob}?ns=${registry}`].map(
          (path) => `/v2/${path}`,
        ),
      ],
      blocksRequest: JSON.stringify(request),
      member: "n1",
      selfSigned,
      packets: tape.frames.slice(-2000).map((frame) => payloadOf(frame).toString("base64")),
      markers: [ZONE],
    });
  }

  it("give it nothing and go on, whatever it sends", async () => {
    assert.ok(tape.frames.length > 20, `${tape.frames.length} packets recorded`);
    assert.ok(tape.frames.every((frame) => !payloadOf(frame).includes(ZONE)));
    const [pids, before] = [await pidsOf(), await memory()];
    const state = { isOver: false };
    let rounds = 0;
    const attacking = attack().finally(() => {
      state.isOver = true;
    });
    attacking.catch(() => undefined);
    while (!state.isOver) {
      await readAll();
      rounds += 1;
    }
    const { attempts, answered, udp } = await attacking;

    process.stdout.write(`      ${rounds} rounds of reads beside ${JSON.stringify(attempts)}\n`);
    assert.deepEqual(answered, []);
    assert.equal(udp.marked, 0);
    assert.ok(udp.receivedBytes <= udp.sentBytes, JSON.stringify(udp));
    assert.deepEqual(await pidsOf(), pids);
    const after = await memory();
    const grown = after.map((bytes, index) => bytes - (before[index] ?? 0));
    process.stdout.write(
      `      memory grew by ${grown.map((bytes) => (bytes / MB).toFixed(0)).join(", ")} MB; ` +
        `${udp.sentBytes} bytes of packets sent, ${udp.receivedBytes} received\n`,
    );
    assert.ok(Math.max(...grown) < MEMORY_BYTES_MAX, grown.join());
    await readAll();
    await assertMembers();
    for (const node of nodes) {
      const { refused: counts } = await node.peers();
      for (const reason of ["malformed", "unknown-key", "forged", "connections"]) {
        assert.ok((counts[reason] ?? 0) > 0, `${node.name} ${reason}: ${JSON.stringify(counts)}`);
      }
      assert.deepEqual(await node.logErrors(), [], node.name);
    }
  });

  describe("take no packet of a member's", () => {
    let victim: TreeNode;
    let other: TreeNode;
    const place = () => ({ wrapper: stranger.wrapper, port: "eth0" });

    before(() => {
      victim = tree.node(1);
      other = tree.node(2);
    });

    /** What other members sent to the victim; its own answers and the stranger's left out. */
    function recorded(): readonly Frame[] {
      const members = new Set(nodes.map(({ host }) => host.address));
      return tape.frames.filter(
        (frame) => targetOf(frame) === victim.host.address && members.has(sourceOf(frame)),
      );
    }

    /** Those for one member alone: a hello may be repeated, and changes nothing. */
    function sealed(frames: readonly Frame[]): readonly Frame[] {
      return frames.filter((frame) => payloadOf(frame)[0] === 1).slice(-500);
    }

    async function rises(node: TreeNode, reason: string, frames: readonly Frame[]): Promise<void> {
      assert.ok(frames.length > 5, `${frames.length} packets`);
      const before = await refused(node, reason);
      await sendFrames(lab, place(), frames);
      // Packets may be lost: a socket's buffer is small.
      await eventually(
        `${node.name} refuses what was ${reason}`,
        async () => (await refused(node, reason)) >= before + frames.length / 2,
      );
      await assertMembers();
    }

    it("twice", async () => {
      await rises(victim, "replayed", sealed(recorded()));
    });

    it("that was for another", async () => {
      const hardware = hardwareOf(tape.frames, other.host.address);
      // A packet from its own address would be dropped before it.
      const foreign = recorded().filter((frame) => sourceOf(frame) !== other.host.address);
      const frames = sealed(foreign).map((frame) =>
        readdressed(frame, other.host.address, hardware),
      );
      await rises(other, "forged", frames);
    });

    it("of before it was started again", async () => {
      const frames = sealed(recorded());
      await victim.stop();
      await victim.start();
      await tree.untilMembers();

      await rises(victim, "forged", frames);

      await readAll();
      await assertMembers();
    });

    it("of before the sender was started again", async () => {
      const sender = tree.node(0);
      const isOfSender = (frame: Frame): boolean => sourceOf(frame) === sender.host.address;
      const frames = sealed(recorded().filter(isOfSender));
      await sender.stop();
      await sender.start();
      await tree.untilMembers();
      const before = (await victim.peers()).refused;

      await sendFrames(lab, place(), frames);

      await eventually("all are refused", async () => {
        const { forged = 0, replayed = 0 } = (await victim.peers()).refused;
        const sum = forged + replayed - (before["forged"] ?? 0) - (before["replayed"] ?? 0);
        return sum >= frames.length / 2;
      });
      await readAll();
      await assertMembers();
    });
  });
});
