/**
 * N real daemons on a private network with a registry behind a shaped link: what a cluster is to
 * its nodes, on one machine. Everything ends with the lab.
 */
import { randomBytes } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { eventually, type Lab, type LabImageName, type MountMode } from "../lab/index.ts";
import type { TreeReport } from "../../../src/daemon/index.ts";
import { NodeNetwork, type NetworkOptions } from "./network.ts";
import { ShapedRegistry } from "./shaped-registry.ts";
import { TreeNode, gossipAddress, type NodeOptions } from "./tree-node.ts";

/** Daemons that start at a time: each start is half a second of a core. */
const STARTS_AT_A_TIME = 4;
const KEY_BYTES = 32;
const MEMBERS_TIMEOUT_MS = 60_000;
/** The nodes that newcomers ask first. */
const SEEDS = 2;

export interface TreeLabOptions extends NetworkOptions {
  /** `[peer]` in every node's configuration (default true). */
  readonly peers?: boolean;
  readonly zoneOf?: (index: number) => string;
  readonly mode?: MountMode;
  readonly readLimitSeconds?: number;
  readonly logLevel?: "info" | "debug";
}

export class TreeLab {
  readonly lab: Lab;
  readonly network: NodeNetwork;
  readonly registry: ShapedRegistry;
  readonly nodes: readonly TreeNode[];
  /** One key in a line, 32 bytes in base64. */
  readonly keyFile: string;

  private constructor(
    lab: Lab,
    network: NodeNetwork,
    registry: ShapedRegistry,
    nodes: readonly TreeNode[],
    keyFile: string,
  ) {
    this.lab = lab;
    this.network = network;
    this.registry = registry;
    this.nodes = nodes;
    this.keyFile = keyFile;
  }

  /** Network and registry run; the nodes are there and not started. */
  static async create(lab: Lab, options: TreeLabOptions): Promise<TreeLab> {
    const network = await NodeNetwork.create(lab, options);
    const registry = await ShapedRegistry.start(lab, network);
    const hostsDir = await writeHosts(lab, registry.address);
    const keyFile = await writeKey(join(hostsDir, "..", "cluster.key"));
    const seeds = network.nodes.slice(0, SEEDS).map(({ address }) => gossipAddress(address));
    const nodes: TreeNode[] = [];
    for (const [index, host] of network.nodes.entries()) {
      const zone = options.zoneOf?.(index);
      const peer = { keyFile, seeds, ...(zone === undefined ? {} : { zone }) };
      const hasPeers = options.peers !== false;
      const all = { ...nodeOptions(options), hostsDir, peer, hasPeers };
      nodes.push(await TreeNode.create(lab, index, host, all));
    }
    return new TreeLab(lab, network, registry, nodes, keyFile);
  }

  node(index: number): TreeNode {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`no node ${index} of ${this.nodes.length}`);
    return node;
  }

  /** Starts these nodes, or all; seeds first, so that nobody finds them away. */
  async start(nodes: readonly TreeNode[] = this.nodes): Promise<void> {
    for (let at = 0; at < nodes.length; at += STARTS_AT_A_TIME) {
      const some = nodes.slice(at, at + STARTS_AT_A_TIME);
      await Promise.all(some.map(async (node) => node.start()));
    }
  }

  /** Resolves when every one of the running nodes (or of these) knows all of them. */
  async untilMembers(nodes: readonly TreeNode[] = this.nodes): Promise<void> {
    const running = nodes.filter((node) => node.isRunning);
    for (const node of running) {
      await eventually(
        `${node.name} knows ${running.length} members`,
        async () => {
          const { members } = await node.peers();
          return members.filter(({ state }) => state === "alive").length === running.length;
        },
        { timeoutMs: MEMBERS_TIMEOUT_MS, everyMs: 200 },
      );
    }
  }

  /**
   * An image's tree as its manager has it, once it has all running nodes (or these) as members.
   * Without `image` (a manifest's digest) there may be one tree only.
   */
  async untilWhole(nodes: readonly TreeNode[] = this.nodes, image = ""): Promise<TreeReport> {
    const running = nodes.filter((node) => node.isRunning);
    let found: TreeReport | undefined;
    await eventually(
      `a tree of ${running.length} members`,
      async () => {
        for (const node of running) {
          const whole = (await node.trees()).trees.find(
            (tree) => tree.isWhole && (image === "" || tree.image === image),
          );
          if (whole?.members.length === running.length) found = whole;
        }
        return found !== undefined;
      },
      { timeoutMs: MEMBERS_TIMEOUT_MS, everyMs: 200 },
    );
    if (found === undefined) throw new Error("no tree");
    return found;
  }

  /** The maps of an image on these nodes, before they start: made once, by the first of them. */
  async makeMaps(image: LabImageName, nodes: readonly TreeNode[] = this.nodes): Promise<void> {
    const [first, ...others] = nodes;
    if (first === undefined) return;
    await first.start();
    await first.mount(image, this.registry.reference(image));
    await first.stop();
    await first.wipeCache();
    await Promise.all(others.map(async (node) => node.takeMaps(first)));
  }
}

function nodeOptions(options: TreeLabOptions): Omit<NodeOptions, "hostsDir" | "peer" | "hasPeers"> {
  return {
    ...(options.mode === undefined ? {} : { mode: options.mode }),
    ...(options.logLevel === undefined ? {} : { logLevel: options.logLevel }),
    ...(options.readLimitSeconds === undefined
      ? {}
      : { readLimitSeconds: options.readLimitSeconds }),
  };
}

/** The lab's registry speaks plain HTTP, at an address that is not loopback. */
async function writeHosts(lab: Lab, address: string): Promise<string> {
  const hostsDir = join(await lab.makeFolder("etc"), "certs.d");
  const server = `http://${address}`;
  await mkdir(join(hostsDir, address), { recursive: true });
  await writeFile(join(hostsDir, address, "hosts.toml"), `server = "${server}"\n`);
  return hostsDir;
}

async function writeKey(file: string): Promise<string> {
  await writeFile(file, `${randomBytes(KEY_BYTES).toString("base64")}\n`, { mode: 0o600 });
  return file;
}
