/**
 * A process with many real nodes on loopback, driven by its parent over IPC (`FleetCommand`). All
 * nodes join one image's tree as soon as they are open.
 */
import { readFile } from "node:fs/promises";
import { systemClock } from "../../../src/base/clock.ts";
import { errorMessage } from "../../../src/base/errors.ts";
import type { LocalPeerNode } from "../../../src/peer/node/local-peer-node.ts";
import { makeTree } from "../../../src/peer/node/tree-port.ts";
import { NodeFleet, textOf } from "./node-fleet.ts";

export const FLEET_IMAGE = `sha256:${"5a".repeat(32)}`;

export type FleetCommand =
  /** Opens nodes `prefix`0 …, spread evenly over `overMs`. */
  | {
      readonly kind: "add";
      readonly prefix: string;
      readonly count: number;
      readonly overMs: number;
      readonly seeds: readonly string[];
    }
  | { readonly kind: "status" }
  | { readonly kind: "stop" };

export interface FleetStatus {
  readonly nodes: number;
  /** Of the nodes' views: members that are alive or suspect. */
  readonly least: number;
  readonly sum: number;
  /** Ids of nodes that take themselves for the root. */
  readonly roots: readonly string[];
  /** From a node's opening to its first place in the tree, ms. */
  readonly placedMs: readonly number[];
  readonly addresses: readonly string[];
  readonly cpuMs: number;
  readonly packets: number;
  readonly memoryMiB: number;
  /** For how long the process was ready to run and another had the processor, ms. */
  readonly starvedMs: number;
}

const fleet = await NodeFleet.open();
const placedMs: number[] = [];
const { signal } = new AbortController();

async function open(id: string, seeds: readonly string[]): Promise<LocalPeerNode> {
  const startMs = systemClock.nowMs();
  const node = await fleet.add(id, seeds, {}, { makeTree });
  let isPlaced = false;
  node.onPosition((_image, position) => {
    if (isPlaced || position === undefined) return;
    isPlaced = true;
    placedMs.push(systemClock.nowMs() - startMs);
  });
  node.join(FLEET_IMAGE);
  return node;
}

async function add(command: FleetCommand & { readonly kind: "add" }): Promise<void> {
  const { prefix, count, overMs, seeds } = command;
  const startMs = systemClock.nowMs();
  const opened: Promise<LocalPeerNode>[] = [];
  for (let index = 0; index < count; index += 1) {
    const waitMs = startMs + (overMs * index) / count - systemClock.nowMs();
    if (waitMs > 1) await systemClock.sleep(waitMs, { signal });
    opened.push(open(`${prefix}${index}`, seeds));
  }
  await Promise.all(opened);
}

/** Source: Documentation/scheduler/sched-stats.rst: time on the processor, time waiting for it. */
async function starved(): Promise<number> {
  const [, waitedNs = "0"] = (await readFile("/proc/self/schedstat", "utf8")).split(" ");
  return Number(waitedNs) / 1e6;
}

async function status(): Promise<FleetStatus> {
  const nodes = [...fleet.nodes.values()];
  const counts = nodes.map(({ presentCount }) => presentCount);
  let packets = 0;
  for (const node of nodes.slice(0, 10)) packets += (await node.members()).packets.sent;
  const { user, system } = process.cpuUsage();
  return {
    nodes: nodes.length,
    least: Math.min(...counts),
    sum: counts.reduce((sum, count) => sum + count, 0),
    roots: nodes
      .filter((node) => node.position(FLEET_IMAGE)?.isRoot === true)
      .map(({ self }) => self.id),
    placedMs,
    addresses: nodes.map(({ self }) => textOf(self.address)),
    cpuMs: (user + system) / 1000,
    packets,
    memoryMiB: process.memoryUsage.rss() / 2 ** 20,
    starvedMs: await starved(),
  };
}

async function run(command: FleetCommand): Promise<FleetStatus | undefined> {
  if (command.kind === "add") await add(command);
  if (command.kind !== "stop") return status();
  await fleet[Symbol.asyncDispose]();
  process.disconnect();
  return undefined;
}

process.on("message", (command: FleetCommand) => {
  run(command).then(
    (answer) => {
      if (answer !== undefined) process.send?.(answer);
    },
    (error: unknown) => {
      process.send?.({ error: errorMessage(error) });
    },
  );
});
process.on("disconnect", () => {
  void fleet[Symbol.asyncDispose]();
});
