/**
 * Many nodes pull as one: what leaves the registry when N real daemons start the same container is
 * one node's working set. The witness is the registry's own access log. Times are told, not judged:
 * all nodes share this machine's processors.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { workOf, Lab, labImage, needs, type ImageWork } from "../../support/lab/index.ts";
import {
  TreeLab,
  killServer,
  runFleet,
  untilServing,
  type FleetRun,
  type TreeNode,
} from "../../support/tree-lab/index.ts";

const COMMANDS = ["ip", "tc", "iptables-restore", "docker-registry", "runc"];
/** Another fleet size can be asked for; 32 takes twice the time. */
const NODES = Number(process.env["FAASNET_TREE_NODES"] ?? 16);
const IMAGE = "pysci";
const MB = 1_000_000;
/** More blocks than its own may pass the registry: what two commands read besides each other. */
const OTHER_COMMAND: ImageWork = {
  image: IMAGE,
  command: ["python3", "-c", "import json, sqlite3, ssl; print('trace', 3.0)"],
  prints: /^trace 3\.0$/m,
};
const EGRESS_MAX = 1.05;
const IMAGE_EGRESS_MAX = 1.02;
const REQUESTS_MAX = 1.2;
/** A relay with two children sends twice what it receives; the wire adds headers and gossip. */
const SENT_PER_RECEIVED = { min: 1.5, max: 2.4 };

describe(`${NODES} nodes that start the same container`, function () {
  this.timeout(600_000);
  let lab: Lab;
  let tree: TreeLab;
  let alone: FleetRun;
  const work = workOf(IMAGE);

  before(async function () {
    const images = [IMAGE] as const;
    needs(this, { root: true, fuse: true, program: true, commands: COMMANDS, images });
    lab = await Lab.create();
    tree = await TreeLab.create(lab, { nodes: NODES });
    const first = tree.node(0);
    await tree.makeMaps(IMAGE, tree.nodes);
    alone = await aloneOn(first);
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  afterEach(async () => {
    for (const node of tree.nodes) if (node.isRunning) await node.stop();
  });

  /** W: one node, the same configuration but for the peers, an empty cache. */
  async function aloneOn(node: TreeNode, what: ImageWork = work): Promise<FleetRun> {
    node.configure({ hasPeers: false });
    await node.wipeCache();
    await node.start();
    const run = await runFleet(tree, { nodes: [node], work: what });
    await node.stop();
    node.configure({ hasPeers: true });
    return run;
  }

  async function startEmpty(): Promise<void> {
    await Promise.all(tree.nodes.map(async (node) => node.wipeCache()));
    await tree.start();
    await tree.untilMembers();
  }

  function say(what: string, run: FleetRun): void {
    const { bytes, requests } = run.registry;
    const times = run.idleShare < 0.02 ? "no idle processor" : `${run.allReadyMs.toFixed(0)} ms`;
    process.stdout.write(`      ${what}: ${(bytes / MB).toFixed(1)} MB, ${requests} requests, `);
    process.stdout.write(`${times}; one alone ${(alone.registry.bytes / MB).toFixed(1)} MB\n`);
  }

  function assertOneWorkingSet(run: FleetRun, mapBytes: number, workingSet = alone): void {
    const most = EGRESS_MAX * (workingSet.registry.bytes + mapBytes);
    assert.ok(run.registry.bytes <= most, `${run.registry.bytes} bytes, over ${most}`);
    for (const [kind, count] of Object.entries(run.registry.requestsByKind)) {
      const all = workingSet.registry.requestsByKind[kind] ?? 0;
      assert.ok(
        count <= Math.ceil(REQUESTS_MAX * all),
        `${count} requests for ${kind}, not ${all}`,
      );
    }
  }

  it("fetch one working set together, all at the same moment", async () => {
    await startEmpty();
    const wire = await tree.network.wireBytes();

    const run = await runFleet(tree, { nodes: tree.nodes, work });

    say("together", run);
    assertOneWorkingSet(run, await tree.node(0).mapBytes());
    await assertRelayed(wire);
  });

  /** Interior nodes send about twice what they receive, leaves next to nothing. */
  async function assertRelayed(
    before: Awaited<ReturnType<TreeLab["network"]["wireBytes"]>>,
  ): Promise<void> {
    const after = await tree.network.wireBytes();
    const whole = await tree.untilWhole();
    const parents = whole.members.map(({ parent }) => parent);
    for (const [index, node] of tree.nodes.entries()) {
      const children = parents.filter((parent) => parent === node.name).length;
      const sent = (after[index]?.sent ?? 0) - (before[index]?.sent ?? 0);
      const received = (after[index]?.received ?? 0) - (before[index]?.received ?? 0);
      const ratio = sent / Math.max(1, received);
      const what = `${node.name} with ${children} children sent ${ratio.toFixed(2)} x`;
      if (children === 0) assert.ok(ratio < 0.1, what);
      else if (children === 2) {
        assert.ok(ratio > SENT_PER_RECEIVED.min && ratio < SENT_PER_RECEIVED.max, what);
      }
    }
  }

  it("fetch one working set together, spread over 2 s", async () => {
    await startEmpty();

    const run = await runFleet(tree, { nodes: tree.nodes, work, spreadMs: 2000 });

    say("spread over 2 s", run);
    assertOneWorkingSet(run, await tree.node(0).mapBytes());
  });

  it("fetch two working sets together for two commands", async () => {
    const other = await aloneOn(tree.node(0), OTHER_COMMAND);
    await startEmpty();
    const half = NODES >> 1;

    const [one, two] = await Promise.all([
      runFleet(tree, { nodes: tree.nodes.slice(0, half), work }),
      runFleet(tree, { nodes: tree.nodes.slice(half), work: OTHER_COMMAND }),
    ]);

    // Both runs saw the whole log: the later of them has everything.
    const run = one.registry.bytes > two.registry.bytes ? one : two;
    say("two commands", run);
    const both = EGRESS_MAX * (alone.registry.bytes + other.registry.bytes);
    assert.ok(run.registry.bytes <= both + (await tree.node(0).mapBytes()));
  });

  it("fetch nothing when one node has the image", async () => {
    await startEmpty();
    const [first, ...others] = tree.nodes;
    assert.ok(first !== undefined);
    await first.cli(["fetch", "--wait", tree.registry.reference(IMAGE)]);

    const run = await runFleet(tree, { nodes: others, work });

    say("image on one node", run);
    assert.equal(run.registry.bytes, 0);
  });

  describe("and have no map", () => {
    beforeEach(async () => {
      for (const node of tree.nodes) await node.wipeRoot();
      await tree.start();
      await tree.untilMembers();
    });

    function assertOneImage(run: FleetRun): void {
      const most = IMAGE_EGRESS_MAX * labImage(IMAGE).bytes;
      assert.ok(run.registry.bytes <= most, `${run.registry.bytes} bytes, over ${most}`);
    }

    it("read the image once: one makes the map for all", async () => {
      const run = await runFleet(tree, { nodes: tree.nodes, work });

      say("no map", run);
      assertOneImage(run);
    });

    it("have one maker at a time also when it is killed half-way", async () => {
      const running = runFleet(tree, { nodes: tree.nodes, work, serversDie: true });
      running.catch(() => undefined);
      const maker = await makerOf();
      await killServer(maker);
      await untilServing(maker);

      const run = await running;

      say("the maker killed", run);
      // What the first maker had read is read once more, and no more than that.
      assert.ok(run.registry.bytes <= 2 * labImage(IMAGE).bytes);
    });
  });

  /** The node that most bytes flow to from the registry, once some have. */
  async function makerOf(): Promise<TreeNode> {
    const before = await tree.network.wireBytes();
    for (let tries = 0; tries < 200; tries += 1) {
      await sleep(200);
      const now = await tree.network.wireBytes();
      const received = now.map((node, index) => node.received - (before[index]?.received ?? 0));
      const most = Math.max(...received);
      if (most > labImage(IMAGE).bytes / 3) return tree.node(received.indexOf(most));
    }
    throw new Error("nobody reads the image");
  }
});
