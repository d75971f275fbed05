/** One image started on many nodes at once, and what it cost: the measurement of the tree. */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { labImage, type AccessEntry, type ImageWork, type LabImageName } from "../lab/index.ts";
import { idleShare, machineTime, processSeconds } from "./cpu.ts";
import type { TreeLab } from "./tree-lab.ts";
import { untilServing } from "./faults.ts";
import type { NodeMount, TreeNode } from "./tree-node.ts";

/** The end of a node's log, shown when its image cannot be mounted. */
const LOG_LINES = 40;

export interface FleetRunOptions {
  readonly nodes: readonly TreeNode[];
  readonly work: ImageWork;
  /** The nodes start evenly spread over so long (default: all at the same moment). */
  readonly spreadMs?: number;
  /** Image services are killed meanwhile: a call that was cut is made again, as containerd's is. */
  readonly serversDie?: boolean;
}

export interface RegistryUse {
  /** Bytes of bodies, of every kind of request. */
  readonly bytes: number;
  readonly requests: number;
  /** By what was asked: `manifests`, `configs` (no layer's blob), `blobs`, `ranges`, `other`. */
  readonly requestsByKind: Readonly<Record<string, number>>;
}

export interface NodeStart {
  readonly name: string;
  /** From its own start: the image mounted. */
  readonly mountedMs: number;
  /** From its own start: the container's first output. */
  readonly readyMs: number;
  /** CPU seconds of its daemon in all roles. */
  readonly cpuSeconds: number;
}

export interface FleetRun {
  readonly registry: RegistryUse;
  readonly starts: readonly NodeStart[];
  /** From the first node's start to the last node's first output. */
  readonly allReadyMs: number;
  readonly registryCpuSeconds: number;
  /** Of the machine's processors; at 0 the times say nothing. */
  readonly idleShare: number;
}

export function registryUse(entries: readonly AccessEntry[], image?: LabImageName): RegistryUse {
  const layers = image === undefined ? [] : labImage(image).layers.map(({ digest }) => digest);
  const requestsByKind: Record<string, number> = {};
  for (const { path, status, blob } of entries) {
    const [, kind = "other"] = /\/(manifests|blobs)\//.exec(path) ?? [];
    const isConfig = layers.length > 0 && blob !== undefined && !layers.includes(blob);
    const ofBlob = isConfig ? "configs" : status === 206 ? "ranges" : "blobs";
    const name = kind === "blobs" ? ofBlob : kind;
    requestsByKind[name] = (requestsByKind[name] ?? 0) + 1;
  }
  const bytes = entries.reduce((sum, { bytesSent }) => sum + bytesSent, 0);
  return { bytes, requests: entries.length, requestsByKind };
}

/** Runs the work's container on every node to its end; its output must be right on all. */
export async function runFleet(tree: TreeLab, options: FleetRunOptions): Promise<FleetRun> {
  const { nodes, work, spreadMs = 0, serversDie = false } = options;
  const { registry } = tree;
  const mark = await registry.mark();
  const roles = await Promise.all(nodes.map(async (node) => [...(await node.roles()).values()]));
  const before = await Promise.all(roles.map(secondsOf));
  const registryBefore = await processSeconds(registry.pid);
  const machineBefore = await machineTime();
  const startedMs = performance.now();
  const times = await Promise.all(
    nodes.map(async (node, index) => {
      await sleep((spreadMs * index) / Math.max(1, nodes.length - 1));
      return startOne(tree, node, work, serversDie);
    }),
  );
  const machineAfter = await machineTime();
  const after = await Promise.all(roles.map(secondsOf));
  return {
    registry: registryUse(await registry.entries(mark), work.image),
    starts: times.map(({ mountedMs, readyMs }, index) => ({
      name: nodes[index]?.name ?? "",
      mountedMs,
      readyMs,
      cpuSeconds: (after[index] ?? 0) - (before[index] ?? 0),
    })),
    allReadyMs: Math.max(...times.map(({ readyAtMs }) => readyAtMs)) - startedMs,
    registryCpuSeconds: (await processSeconds(registry.pid)) - registryBefore,
    idleShare: idleShare(machineBefore, machineAfter),
  };
}

async function secondsOf(pids: readonly number[]): Promise<number> {
  const each = await Promise.all(pids.map(processSeconds));
  return each.reduce((sum, seconds) => sum + seconds, 0);
}

async function startOne(
  tree: TreeLab,
  node: TreeNode,
  work: ImageWork,
  serversDie: boolean,
): Promise<{ readonly mountedMs: number; readonly readyMs: number; readonly readyAtMs: number }> {
  const startedMs = performance.now();
  const mount = await mountOn(tree, node, work, serversDie);
  const mountedAtMs = performance.now();
  const ran = await node.run(mount, work.command, { timeoutMs: 300_000 });
  if (ran.status !== 0 || !work.prints.test(ran.stdout)) {
    const output = `${ran.stdout}\n${ran.stderr}`.trim();
    throw new Error(`the container on ${node.name}: status ${ran.status}: ${output}`);
  }
  const firstMs = (ran.firstOutputSeconds ?? ran.seconds) * 1000;
  const readyAtMs = performance.now() - ran.seconds * 1000 + firstMs;
  return { mountedMs: mountedAtMs - startedMs, readyMs: readyAtMs - startedMs, readyAtMs };
}

async function mountOn(
  tree: TreeLab,
  node: TreeNode,
  { image }: ImageWork,
  serversDie: boolean,
): Promise<NodeMount> {
  const reference = tree.registry.reference(image);
  try {
    return await node.mount(image, reference);
  } catch (error) {
    const log = (await readFile(node.logFile, "utf8")).split("\n").slice(-LOG_LINES).join("\n");
    if (!serversDie)
      throw new Error(`${image} on ${node.name}; its log:\n${log}`, { cause: error });
    await untilServing(node);
    return node.mount(image, reference);
  }
}
