/**
 * What goes wrong in clusters, as functions on a running lab. Faults of the network are methods of
 * `NodeNetwork` (link, loss, partition, block), those of the registry of `ShapedRegistry` (pause,
 * limitRate, stall).
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { eventually } from "../lab/index.ts";
import type { NodeRole, TreeNode } from "./tree-node.ts";

const ROLES: readonly NodeRole[] = ["main", "image-service", "keeper"];
const RESTART_TIMEOUT_MS = 30_000;

/** Milliseconds of `performance.now()` at which the signal was sent. */
async function signalRoles(
  node: TreeNode,
  roles: readonly NodeRole[],
  signal: NodeJS.Signals,
): Promise<number> {
  const running = await node.roles();
  const pids = roles.flatMap((role) => running.get(role) ?? []);
  if (pids.length < roles.length)
    throw new Error(`${node.name} has not all of ${roles.join(", ")}`);
  for (const pid of pids) process.kill(pid, signal);
  return performance.now();
}

/** Stops the processes where they are: the kernel still answers for them. All roles by default. */
export async function freeze(node: TreeNode, roles = ROLES): Promise<number> {
  return signalRoles(node, roles, "SIGSTOP");
}

export async function thaw(node: TreeNode, roles = ROLES): Promise<number> {
  return signalRoles(node, roles, "SIGCONT");
}

/** kill -9 of the role that serves blocks; the node's main process starts another. */
export async function killServer(node: TreeNode): Promise<number> {
  return signalRoles(node, ["image-service"], "SIGKILL");
}

/** Resolves when the killed role answers again. */
export async function untilServing(node: TreeNode): Promise<void> {
  await eventually(
    `${node.name} serves again`,
    async () => (await node.status().catch(() => undefined))?.ready === true,
    { timeoutMs: RESTART_TIMEOUT_MS, everyMs: 50 },
  );
}

/** kill -9 of everything that is the node's; it does not come back by itself. */
export async function killNode(node: TreeNode): Promise<number> {
  const at = await signalRoles(node, ROLES, "SIGKILL");
  await node.forget();
  return at;
}

function preload(module: string): string {
  return `--import=${pathToFileURL(join(import.meta.dirname, module)).href}`;
}

/** The node's wall clock is so far ahead (or behind) from its next start on. */
export function skewClock(node: TreeNode, ms: number): void {
  node.configure({
    env: { NODE_OPTIONS: preload("skewed-clock.js"), FAASNET_SKEW_MS: String(ms) },
  });
}

/** From its next start on the node can be told to send wrong bytes; `begin` tells it. */
export function makeLiar(node: TreeNode): { readonly begin: () => Promise<void> } {
  const file = join(node.folder, "lie");
  node.configure({ env: { NODE_OPTIONS: preload("lying-server.js"), FAASNET_LIE: file } });
  return {
    begin: async () => {
      await writeFile(file, "");
    },
  };
}
