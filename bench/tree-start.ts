/**
 * What a node costs that starts one container in a fleet where all do so at once: CPU seconds of
 * its image service by kind of thread, from the first call to the container's end and a while
 * after.
 *
 *     node dist/bench/tree-start.js [--quick] [--nodes N] [--rounds N] [--against PROGRAM]
 *
 * With another build's program every second node runs that one, the others in the next round, so
 * that both are measured in the same fleets. Needs root and the images of scripts/lab-images.
 */
import { readFile, readdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { programPath, withLab } from "../test/support/lab/index.ts";
import type { ImageWork, Lab } from "../test/support/lab/index.ts";
import { TreeLab, runFleet } from "../test/support/tree-lab/index.ts";

const MB = 1e6;
/** Blocks that others still fetch. */
const SETTLE_MS = 1500;
/** Source: src/node_platform.cc: one scheduler of delayed tasks, and four workers behind it. */
const V8_THREADS = { first: 2, end: 6 };
/** A pid that has wrapped around comes after those of its process that have not. */
const PIDS_MAX = 4_194_304;

const SCRIPT =
  "cat /usr/bin/* > /dev/null && ls -lR /usr/share/doc | wc -l > /dev/null && echo done";
const WORK: ImageWork = {
  image: "debian",
  command: ["/bin/sh", "-c", SCRIPT],
  prints: /^done$/m,
};

interface Cost {
  nodes: number;
  all: number;
  loop: number;
  v8: number;
  sentBytes: number;
  peakBytes: number;
}

/** Seconds by thread id. */
async function threadSeconds(pid: number): Promise<ReadonlyMap<number, number>> {
  const seconds = new Map<number, number>();
  for (const thread of await readdir(`/proc/${pid}/task`)) {
    const text = await readFile(`/proc/${pid}/task/${thread}/schedstat`, "latin1").catch(() => "0");
    seconds.set(Number(thread), Number(text.split(" ")[0]) / 1e9);
  }
  return seconds;
}

function spent(
  pid: number,
  before: ReadonlyMap<number, number>,
  after: ReadonlyMap<number, number>,
): Pick<Cost, "all" | "loop" | "v8"> {
  const order = (thread: number): number => (thread >= pid ? thread : thread + PIDS_MAX);
  const each = [...after]
    .sort(([one], [other]) => order(one) - order(other))
    .map(([thread, seconds]) => seconds - (before.get(thread) ?? 0));
  const sum = (values: readonly number[]): number => values.reduce((all, value) => all + value, 0);
  return {
    all: sum(each),
    loop: each[0] ?? 0,
    v8: sum(each.slice(V8_THREADS.first, V8_THREADS.end)),
  };
}

async function peakBytes(pid: number): Promise<number> {
  const [, kib = "0"] =
    /VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, "latin1")) ?? [];
  return Number(kib) * 1024;
}

async function measure(
  lab: Lab,
  options: { readonly nodes: number; readonly programOf: (index: number) => string },
): Promise<readonly (Cost & { readonly program: string })[]> {
  const { nodes, programOf } = options;
  const tree = await TreeLab.create(lab, { nodes });
  await tree.makeMaps(WORK.image);
  for (const [index, node] of tree.nodes.entries()) node.configure({ program: programOf(index) });
  await tree.start();
  await tree.untilMembers();
  const pids = await Promise.all(
    tree.nodes.map(async (node) => (await node.roles()).get("image-service") ?? -1),
  );
  const wireBefore = await tree.network.wireBytes();
  const before = await Promise.all(pids.map(threadSeconds));
  await runFleet(tree, { nodes: tree.nodes, work: WORK });
  await sleep(SETTLE_MS);
  const after = await Promise.all(pids.map(threadSeconds));
  const wireAfter = await tree.network.wireBytes();
  return Promise.all(
    pids.map(async (pid, index) => ({
      program: programOf(index),
      nodes: 1,
      ...spent(pid, before[index] ?? new Map(), after[index] ?? new Map()),
      sentBytes: (wireAfter[index]?.sent ?? 0) - (wireBefore[index]?.sent ?? 0),
      peakBytes: await peakBytes(pid),
    })),
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      nodes: { type: "string", default: "8" },
      rounds: { type: "string", default: "" },
      against: { type: "string", default: "" },
    },
  });
  const programs = values.against === "" ? [programPath] : [programPath, values.against];
  const rounds = Number(values.rounds === "" ? (values.quick ? 1 : 4) : values.rounds);
  const costs = new Map<string, Cost>();
  for (let round = 0; round < rounds; round += 1) {
    const programOf = (index: number): string => programs[(index + round) % programs.length] ?? "";
    await withLab(async (lab) => {
      for (const one of await measure(lab, { nodes: Number(values.nodes), programOf })) {
        const sum = costs.get(one.program);
        if (sum === undefined) {
          costs.set(one.program, one);
          continue;
        }
        for (const name of ["nodes", "all", "loop", "v8", "sentBytes", "peakBytes"] as const) {
          sum[name] += one[name];
        }
      }
    });
  }
  for (const [program, { nodes, all, loop, v8, sentBytes, peakBytes: peak }] of costs) {
    const of = (value: number): string => (value / nodes).toFixed(2);
    process.stdout.write(
      `start: ${of(all)} CPU-s a node (main loop ${of(loop)}, V8's threads ${of(v8)}), ` +
        `sent ${of(sentBytes / MB)} MB, peak ${of(peak / MB)} MB; ${nodes} nodes of ${program}\n`,
    );
  }
}

await main();
