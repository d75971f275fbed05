/**
 * A few real nodes pull as one, with and without maps. The witness is the registry's own access
 * log; the bounds leave room for a busy machine: four nodes without a tree take four times as
 * much. The exact bounds, larger fleets, and all that can go wrong between nodes: scripts/trees.
 */
import assert from "node:assert/strict";
import { Lab, labImage, needs, type ImageWork } from "../../support/lab/index.ts";
import { TreeLab, runFleet, type FleetRun, type TreeNode } from "../../support/tree-lab/index.ts";

const COMMANDS = ["ip", "tc", "docker-registry", "runc"];
const NODES = 4;
const IMAGE = "debian";
const SCRIPT =
  "cat /usr/bin/* > /dev/null && ls -lR /usr/share/doc | wc -l > /dev/null && echo done";
const WORK: ImageWork = { image: IMAGE, command: ["/bin/sh", "-c", SCRIPT], prints: /^done$/m };
const EGRESS_MAX = 1.5;
const MB = 1_000_000;

describe(`${NODES} nodes that start one container`, function () {
  this.timeout(150_000);
  let lab: Lab;
  let tree: TreeLab;

  before(async function () {
    const images = [IMAGE] as const;
    needs(this, { root: true, fuse: true, program: true, commands: COMMANDS, images });
    lab = await Lab.create();
    tree = await TreeLab.create(lab, { nodes: NODES });
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  afterEach(async () => {
    for (const node of tree.nodes) if (node.isRunning) await node.stop();
  });

  function say(what: string, { registry }: FleetRun): void {
    const { bytes, requests } = registry;
    process.stdout.write(`      ${what}: ${(bytes / MB).toFixed(1)} MB, ${requests} requests\n`);
  }

  /** However many nodes there are, the repository's owner asks for them, once each. */
  async function assertDocumentsOnce(run: FleetRun, since: number): Promise<void> {
    const { manifests = 0, configs = 0 } = run.registry.requestsByKind;
    const entries = await tree.registry.entries(since);
    const asked = entries.flatMap(({ path }) => (path.includes("/manifests/") ? [path] : []));
    assert.equal(new Set(asked).size, manifests, asked.join(" "));
    assert.ok(manifests >= 1 && configs <= 1, `${manifests} manifests, ${configs} configs`);
  }

  it("fetch the image once together when nobody has its map", async () => {
    await tree.start();
    await tree.untilMembers();

    const mark = await tree.registry.mark();
    const run = await runFleet(tree, { nodes: tree.nodes, work: WORK });

    say("no map", run);
    await assertDocumentsOnce(run, mark);
    const most = EGRESS_MAX * labImage(IMAGE).bytes;
    assert.ok(run.registry.bytes <= most, `${run.registry.bytes} bytes, over ${most}`);
  });

  it("fetch one node's working set together when all have the map", async () => {
    const first = tree.node(0);
    for (const node of tree.nodes) await node.wipeCache();
    first.configure({ hasPeers: false });
    await first.start();
    const alone = await runFleet(tree, { nodes: [first], work: WORK });
    await first.stop();
    first.configure({ hasPeers: true });
    await first.wipeCache();
    await tree.start();
    await tree.untilMembers();

    const mark = await tree.registry.mark();
    const run = await runFleet(tree, { nodes: tree.nodes, work: WORK });

    say("one alone", alone);
    say("all", run);
    await assertDocumentsOnce(run, mark);
    const most = EGRESS_MAX * alone.registry.bytes;
    assert.ok(run.registry.bytes <= most, `${run.registry.bytes} bytes, over ${most}`);
    await startWithNothing(tree.node(NODES - 1));
  });

  /** The others have the image; the registry is down. */
  async function startWithNothing(node: TreeNode): Promise<void> {
    await node.stop();
    await node.wipeRoot();
    await tree.registry.stop();
    await node.start();
    await tree.untilMembers();

    const mount = await node.mount(IMAGE, tree.registry.reference(IMAGE));
    const { status, stdout } = await node.run(mount, WORK.command);

    assert.equal(status, 0);
    assert.match(stdout, WORK.prints);
  }
});
