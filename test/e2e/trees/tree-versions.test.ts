/**
 * Two adjacent wire versions in one fleet, half of the nodes each, for minutes under load: images
 * are read in full through trees that both are in, nodes are restarted with nothing, and nobody
 * refuses anybody. A third version, which has nothing in common with the first, is refused by name
 * on both sides, and harms nobody. The builds differ in a constant (other-build.ts).
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { TreeReport } from "../../../src/daemon/index.ts";
import {
  Lab,
  Registry,
  eventually,
  expectedTree,
  needs,
  type LabImageName,
} from "../../support/lab/index.ts";
import {
  TreeLab,
  builtVersions,
  otherBuild,
  parseReadLog,
  readerProgram,
  registryUse,
  writeFileList,
  type FileList,
  type NodeMount,
  type TreeNode,
  type Versions,
} from "../../support/tree-lab/index.ts";

const COMMANDS = ["ip", "tc", "iptables-restore", "docker-registry", "runc", "gcc"];
const IMAGES = ["debian", "edge"] as const satisfies readonly LabImageName[];
const NODES = Number(process.env["FAASNET_TREE_NODES"] ?? 6);
const MINUTES = Number(process.env["FAASNET_TREE_MINUTES"] ?? 10);
const MINUTE_MS = 60_000;
const QUIET_TIMEOUT_MS = 60_000;
/** The last round, and the tests that follow. */
const SPARE_MS = 5 * MINUTE_MS;
/** A node is restarted when the others' reads are under way. */
const RESTART_AFTER_MS = 500;
/** Of a block: less may be a hedge's beginning. */
const FED_BYTES_MIN = 1_000_000;
const MB = 1_000_000;

interface Image {
  readonly name: LabImageName;
  readonly list: FileList;
}

/** What passed between the two versions, bytes. */
interface Fed {
  toNext: number;
  toCurrent: number;
}

describe(`Two adjacent wire versions under load for ${MINUTES} minutes`, function () {
  this.timeout(MINUTES * MINUTE_MS + SPARE_MS);
  const images: Image[] = [];
  const fed: Fed = { toNext: 0, toCurrent: 0 };
  const egress: string[] = [];
  let lab: Lab;
  let tree: TreeLab;
  let reader: string;
  let current: Versions;
  /** Of both versions, alternating. */
  let nodes: readonly TreeNode[];
  /** Speaks neither's. */
  let stranger: TreeNode;

  before(async function () {
    needs(this, { root: true, fuse: true, program: true, commands: COMMANDS, images: IMAGES });
    lab = await Lab.create();
    tree = await TreeLab.create(lab, { nodes: NODES + 1 });
    nodes = tree.nodes.slice(0, NODES);
    stranger = tree.node(NODES);
    current = await builtVersions();
    const next = await otherBuild(lab, { ...current, highest: current.highest + 1 });
    const later = current.highest + 2;
    stranger.configure({ program: await otherBuild(lab, { lowest: later, highest: later }) });
    for (const node of nodes) if (isNext(node)) node.configure({ program: next });
    reader = await readerProgram();
    const registry = await Registry.start(lab);
    for (const name of IMAGES) {
      const choice = { from: 20_000, to: 2_000_000, totalBytes: 12_000_000, seed: 11 };
      const list = await writeFileList(lab, await expectedTree(lab, registry, name), choice);
      images.push({ name, list });
    }
    await tree.start(nodes);
    await tree.untilMembers(nodes);
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  /** The root is of the current version, its first child of the next. */
  function isNext(node: TreeNode): boolean {
    return node.index % 2 === 1;
  }

  function versionOf(node: TreeNode): number {
    return current.highest + (isNext(node) ? 1 : 0);
  }

  function named(name: string): TreeNode {
    const node = nodes.find((each) => each.name === name);
    assert.ok(node !== undefined, `no node ${name}`);
    return node;
  }

  /** Reads the image's files in a container, from a cache that has none of them. */
  async function read(
    node: TreeNode,
    { name, list }: Image,
    mounted?: NodeMount,
  ): Promise<NodeMount> {
    const mount = mounted ?? (await node.mount(name, tree.registry.reference(name)));
    const options = { binds: [reader, list.file], timeoutMs: 180_000 };
    const { stdout, stderr } = await node.run(mount, [reader, list.file], options);
    const log = parseReadLog(stdout);
    assert.deepEqual(log.errors, [], `${node.name} ${name} ${stderr}`);
    assert.deepEqual(log.digests, list.digests, `${node.name} ${name}`);
    return mount;
  }

  async function leave(node: TreeNode, mount: NodeMount): Promise<void> {
    await node.release(mount);
    await node.clearCache();
  }

  /** Everybody sees one tree with one root, and both versions are in it. */
  async function quiet(image: string): Promise<TreeReport> {
    const whole = await tree.untilWhole(nodes, image);
    await eventually(
      "all members name one root and one manager",
      async () => {
        const all = await Promise.all(nodes.map(async (node) => node.trees()));
        const views = all.flatMap(({ trees }) => trees.filter((each) => each.image === image));
        const heads = views.map(({ root, epoch }) => `${root} ${epoch.manager} ${epoch.counter}`);
        const managers = views.filter(({ isWhole }) => isWhole);
        return views.length === NODES && new Set(heads).size === 1 && managers.length === 1;
      },
      { timeoutMs: QUIET_TIMEOUT_MS, everyMs: 200 },
    );
    const roots = whole.members.filter(({ parent }) => parent === null);
    assert.deepEqual(
      roots.map(({ name }) => name),
      [whole.root],
    );
    const versions = new Set(whole.members.map(({ name }) => versionOf(named(name))));
    assert.equal(versions.size, 2);
    return whole;
  }

  /** Bytes of blocks that each node has from others, and has given, of all images. */
  async function traffic(): Promise<ReadonlyMap<string, readonly [got: number, gave: number]>> {
    const each = nodes.map(async (node) => {
      const { trees } = await node.trees();
      const got = trees.reduce((sum, one) => sum + (one.blocksBySource["parent"]?.bytes ?? 0), 0);
      const own = trees.flatMap(({ members }) => members).find(({ name }) => name === node.name);
      return [node.name, [got, own?.bytesOut ?? 0]] as const;
    });
    return new Map(await Promise.all(each));
  }

  async function assertNobodyRefused(): Promise<void> {
    for (const node of nodes) {
      const { members, problems, refused } = await node.peers();
      assert.equal(refused["other-version"], 0, node.name);
      assert.deepEqual(
        problems.filter(({ kind }) => kind === "other-version"),
        [],
        node.name,
      );
      const spoken = members.filter(({ state }) => state === "alive");
      for (const { name, wireVersion } of spoken) {
        assert.equal(wireVersion, versionOf(named(name)), `${name} as ${node.name} sees it`);
      }
      assert.deepEqual(await node.logErrors(), [], node.name);
    }
  }

  /** All read one image at once; one of them is restarted meanwhile and reads it after that. */
  async function round(number: number): Promise<void> {
    const image = images[number % images.length];
    assert.ok(image !== undefined);
    const rolled = number === 0 ? undefined : nodes[number % NODES];
    const others = nodes.filter((node) => node !== rolled);
    const mark = await tree.registry.mark();
    const before = await traffic();
    const mounts: (readonly [TreeNode, NodeMount])[] = [];
    for (const node of others) {
      // The first time one after the other: so they stand in the tree, both feeding both.
      mounts.push([node, await node.mount(image.name, tree.registry.reference(image.name))]);
    }
    const reads = mounts.map(
      async ([node, mount]) => [node, await read(node, image, mount)] as const,
    );
    const restarted = restart(rolled);
    const settled = await Promise.allSettled([restarted, ...reads]);
    for (const each of settled) if (each.status === "rejected") throw each.reason;
    const mounted = await Promise.all(reads);
    if (rolled !== undefined) mounted.push([rolled, await read(rolled, image)]);
    await tree.untilMembers(nodes);
    const [, anyMount] = mounted[0] ?? [];
    const whole = await quiet(anyMount?.manifestDigest ?? "");
    countFed(whole, before, await traffic(), rolled);
    await assertNobodyRefused();
    const { bytes } = registryUse(await tree.registry.entries(mark));
    egress.push((bytes / MB).toFixed(1));
    for (const [node, mount] of mounted) await leave(node, mount);
  }

  async function restart(node: TreeNode | undefined): Promise<void> {
    if (node === undefined) return;
    await sleep(RESTART_AFTER_MS);
    await node.stop();
    await node.wipeRoot();
    await node.start();
  }

  /** Of children whose parent is of the other version: what they got, and it gave. */
  function countFed(
    whole: TreeReport,
    before: Awaited<ReturnType<typeof traffic>>,
    now: Awaited<ReturnType<typeof traffic>>,
    rolled: TreeNode | undefined,
  ): void {
    for (const { name, parent } of whole.members) {
      if (parent === null || versionOf(named(name)) === versionOf(named(parent))) continue;
      // A node that was restarted has moved, and counts from nothing.
      if (name === rolled?.name || parent === rolled?.name) continue;
      const got = (now.get(name)?.[0] ?? 0) - (before.get(name)?.[0] ?? 0);
      const gave = (now.get(parent)?.[1] ?? 0) - (before.get(parent)?.[1] ?? 0);
      const bytes = Math.min(got, gave);
      if (bytes < FED_BYTES_MIN) continue;
      if (isNext(named(name))) fed.toNext += bytes;
      else fed.toCurrent += bytes;
    }
  }

  it("share one tree, and feed each other", async () => {
    const until = performance.now() + MINUTES * MINUTE_MS;
    let rounds = 0;
    while (performance.now() < until) {
      await round(rounds);
      rounds += 1;
    }

    const [toNext, toCurrent] = [fed.toNext, fed.toCurrent].map((bytes) => (bytes / MB).toFixed(0));
    process.stdout.write(
      `      ${rounds} rounds of ${NODES} readers; ${toNext} MB from the current version to the ` +
        `next, ${toCurrent} MB back\n      MB from the registry, for files of ` +
        `${images.map(({ list }) => (list.bytes / MB).toFixed(1)).join(" and ")} MB unpacked in ` +
        `turn: ${egress.join(" ")}\n`,
    );
    assert.ok(fed.toNext > 0 && fed.toCurrent > 0, JSON.stringify(fed));
  });

  it("refuse by name one that has no version in common, on both sides, unharmed", async () => {
    const seeds = nodes.slice(0, 2);
    const [image] = images;
    assert.ok(image !== undefined);
    await stranger.start();

    for (const [node, who] of [
      ...seeds.map((seed) => [seed, stranger.host.address] as const),
      ...seeds.map((seed) => [stranger, seed.name] as const),
    ]) {
      await eventually(
        `${node.name} names ${who}`,
        async () => {
          const { problems } = await node.peers();
          return problems.some(
            ({ kind, who: whom }) => kind === "other-version" && whom.includes(who),
          );
        },
        { timeoutMs: QUIET_TIMEOUT_MS, everyMs: 200 },
      );
    }
    const { stdout } = await stranger.cli(["peers"]);
    assert.match(stdout, /^no common wire version: n1, /m);
    assert.deepEqual(
      (await stranger.peers()).members.map(({ name }) => name),
      [stranger.name],
    );
    const mounts = await Promise.all([...nodes, stranger].map(async (node) => read(node, image)));
    await tree.untilMembers(nodes);
    const whole = await quiet(mounts[0]?.manifestDigest ?? "");
    assert.ok(whole.members.every(({ name }) => name !== stranger.name));
    for (const node of nodes) {
      const { members } = await node.peers();
      assert.ok(
        members.every(({ name }) => name !== stranger.name),
        node.name,
      );
      assert.deepEqual(await node.logErrors(), [], node.name);
    }
  });
});
