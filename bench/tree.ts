/**
 * What real daemons carry in a function tree, each whole process measured.
 *
 *     node dist/bench/tree.js [relay] [demand] [--quick]
 *
 * relay: five daemons; one below the root receives an image, verifies, caches and sends it to two
 * children; bytes on the wire per CPU-second of its image service. demand: 64 KiB reads of a
 * container on a 200 Mbit/s link that the same parent fills with bulk. Needs root and the images of
 * scripts/lab-images. bench/peer-relay.ts and bench/tree-joins.ts measure the parts alone.
 */
import { cpus } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Registry, expectedTree, run, withLab } from "../test/support/lab/index.ts";
import {
  TreeLab,
  parseReadLog,
  processSeconds,
  readerProgram,
  writeFileList,
} from "../test/support/tree-lab/index.ts";

const MB = 1e6;

const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};

async function benchRelay(image: "pysci" | "debian"): Promise<void> {
  await withLab(async (lab) => {
    // The root has two below it; the first of those has the two others.
    const tree = await TreeLab.create(lab, { nodes: 5, registryRate: "10gbit" });
    await tree.makeMaps(image);
    await tree.start();
    const [root, ...others] = tree.nodes;
    if (root === undefined) return;
    const reference = tree.registry.reference(image);
    await root.cli(["fetch", "--wait", reference]);
    for (const node of others) await node.mount(image, reference);
    const servers = await Promise.all(
      others.map(async (node) => (await node.roles()).get("image-service") ?? -1),
    );
    const cpu = await Promise.all(servers.map(processSeconds));
    const before = await tree.network.wireBytes();
    const startMs = performance.now();
    await Promise.all(others.map(async (node) => node.cli(["fetch", "--wait", reference])));
    const seconds = (performance.now() - startMs) / 1000;
    const after = await tree.network.wireBytes();
    for (const [index, node] of others.entries()) {
      const used = (await processSeconds(servers[index] ?? -1)) - (cpu[index] ?? 0);
      const [from, to] = [before[node.index], after[node.index]];
      const received = ((to?.received ?? 0) - (from?.received ?? 0)) / MB;
      const sent = ((to?.sent ?? 0) - (from?.sent ?? 0)) / MB;
      say(
        `relay: ${node.name} received ${received.toFixed(0)} MB, sent ${sent.toFixed(0)} MB in ` +
          `${seconds.toFixed(1)} s with ${used.toFixed(1)} CPU-s: ` +
          `${(received / used).toFixed(0)} in + ${(sent / used).toFixed(0)} out MB per CPU-second`,
      );
    }
  });
}

async function benchDemand(): Promise<void> {
  await withLab(async (lab) => {
    const tree = await TreeLab.create(lab, { nodes: 2, nodeRate: "200mbit" });
    await tree.makeMaps("pysci");
    await tree.makeMaps("debian");
    await tree.start();
    const [parent, child] = [tree.node(0), tree.node(1)];
    const [bulk, small] = [tree.registry.reference("pysci"), tree.registry.reference("debian")];
    for (const reference of [bulk, small]) await parent.cli(["fetch", "--wait", reference]);
    const oracle = await expectedTree(lab, await Registry.start(lab), "debian");
    const choice = { from: 64 * 1024, to: 4 * MB, totalBytes: 40 * MB, seed: 3 };
    const list = await writeFileList(lab, oracle, choice);
    const reader = await readerProgram();
    const mount = await child.mount("debian", small);
    const filling = child.cli(["fetch", "--wait", bulk]);
    await sleep(500);
    const { stdout } = await child.run(mount, [reader, "-s", "65536", "-p", "5000", list.file], {
      binds: [reader, list.file],
      timeoutMs: 300_000,
    });
    await filling;
    const log = parseReadLog(stdout);
    say(
      `demand: ${log.reads} reads of 64 KiB beside bulk on 200 Mbit/s: p99 ${log.p99Ms.toFixed(1)} ` +
        `ms, longest ${log.maxMs.toFixed(1)} ms`,
    );
  });
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { quick: { type: "boolean", default: false } },
  });
  const wanted = positionals.length > 0 ? positionals : ["relay", "demand"];
  say(`${cpus().length} processors, ${(await run("uname", ["-r"])).stdout.trim()}`);
  if (wanted.includes("relay")) await benchRelay(values.quick ? "debian" : "pysci");
  if (wanted.includes("demand")) await benchDemand();
}

await main();
