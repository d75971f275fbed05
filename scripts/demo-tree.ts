/**
 * The demonstration of many nodes: N real daemons, each in its own network namespace, start the
 * same container; the closing table sets the registry's egress beside one node's alone.
 * docs/tree-demo.md has what it showed.
 */
import { cpus, totalmem } from "node:os";
import { parseArgs } from "node:util";
import {
  labImage,
  pssOf,
  withLab,
  workOf,
  type ImageWork,
  type Lab,
} from "../test/support/lab/index.ts";
import { TreeLab, runFleet, type FleetRun } from "../test/support/tree-lab/index.ts";

const IMAGES = ["pysci", "node", "debian", "busybox"] as const;
type DemoImage = (typeof IMAGES)[number];

const OPTIONS = {
  nodes: { type: "string", default: "8" },
  image: { type: "string", default: "pysci" },
  /** known: every node has the image's map; none: nobody has. */
  maps: { type: "string", default: "known" },
  /** Over so many seconds the nodes start. */
  spread: { type: "string", default: "0" },
  /** What the registry sends at most, as tc writes it. */
  rate: { type: "string", default: "1gbit" },
  "no-peers": { type: "boolean", default: false },
  json: { type: "boolean", default: false },
} as const;

interface Settings {
  readonly nodes: number;
  readonly image: DemoImage;
  readonly maps: "known" | "none";
  readonly spreadMs: number;
  readonly rate: string;
  readonly peers: boolean;
  readonly json: boolean;
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
const seconds = (ms: number): string => `${(ms / 1000).toFixed(2)} s`;

/** debian has no program of its own that reads much: the shell and what a shell script calls. */
function workOfDemo(image: DemoImage): ImageWork {
  if (image !== "debian") return workOf(image);
  const script =
    "cat /usr/bin/* > /dev/null && ls -lR /usr/share/doc | wc -l > /dev/null && echo done";
  return { image, command: ["/bin/sh", "-c", script], prints: /^done$/m };
}

class Demonstration {
  readonly #settings: Settings;
  readonly #lab: Lab;
  readonly #work: ImageWork;

  constructor(lab: Lab, settings: Settings) {
    this.#lab = lab;
    this.#settings = settings;
    this.#work = workOfDemo(settings.image);
  }

  /** For people; with --json standard output is for the object alone. */
  #say(text: string): void {
    (this.#settings.json ? process.stderr : process.stdout).write(`${text}\n`);
  }

  async run(): Promise<void> {
    const { nodes, image, maps, peers, rate, spreadMs } = this.#settings;
    const tree = await TreeLab.create(this.#lab, { nodes, peers, registryRate: rate });
    this.#say(`${nodes} nodes, image ${image}, registry at ${tree.registry.address} (${rate})`);
    const alone = await this.#alone(tree);
    const [first] = tree.nodes;
    const mapBytes = (await first?.mapBytes()) ?? 0;
    this.#say(
      `one node alone: ${megabytes(alone.registry.bytes)} in ${alone.registry.requests} requests, ` +
        `ready after ${seconds(alone.allReadyMs)}`,
    );
    if (maps === "known") await first?.wipeCache();
    else await first?.wipeRoot();
    if (maps === "known" && first !== undefined) {
      for (const node of tree.nodes.slice(1)) await node.takeMaps(first);
    }
    await tree.start();
    if (peers) await tree.untilMembers();
    const memory = await memoryOf(tree);
    const fleet = await runFleet(tree, { nodes: tree.nodes, work: this.#work, spreadMs });
    this.#table(fleet);
    if (peers) this.#say(`\n${await drawnTree(tree)}`);
    this.#summary(alone, fleet, mapBytes);
    const result = this.#result(alone, fleet, { mapBytes, memory });
    if (this.#settings.json) process.stdout.write(`${JSON.stringify(result)}\n`);
  }

  /** One node without any other, in the same state of maps: the working set W. */
  async #alone(tree: TreeLab): Promise<FleetRun> {
    const node = tree.node(0);
    node.configure({ hasPeers: false });
    if (this.#settings.maps === "known") await tree.makeMaps(this.#settings.image, [node]);
    await node.start();
    const run = await runFleet(tree, { nodes: [node], work: this.#work });
    await node.stop();
    node.configure({ hasPeers: this.#settings.peers });
    return run;
  }

  #table(fleet: FleetRun): void {
    this.#say("\nnode   mounted     ready   CPU");
    for (const { name, mountedMs, readyMs, cpuSeconds } of fleet.starts) {
      const times = [seconds(mountedMs), seconds(readyMs), `${cpuSeconds.toFixed(1)} s`];
      this.#say(`${name.padEnd(4)} ${times.map((time) => time.padStart(9)).join(" ")}`);
    }
  }

  #summary(alone: FleetRun, fleet: FleetRun, mapBytes: number): void {
    const { nodes, maps } = this.#settings;
    const ratio = fleet.registry.bytes / alone.registry.bytes;
    const { size, all } = { size: labImage(this.#settings.image).bytes, all: fleet.registry };
    this.#say(
      [
        "",
        `image              ${megabytes(size)} compressed; maps ${megabytes(mapBytes)} (${maps})`,
        `one node alone     ${megabytes(alone.registry.bytes)}, ${alone.registry.requests} requests`,
        `${nodes} nodes`.padEnd(19) + `${megabytes(all.bytes)}, ${all.requests} requests`,
        `egress             ${ratio.toFixed(2)} x one node's`,
        `all ready after    ${seconds(fleet.allReadyMs)} (one alone: ${seconds(alone.allReadyMs)})`,
        ...(fleet.idleShare < 0.02 ? ["no processor was ever idle: the times say nothing"] : []),
      ].join("\n"),
    );
  }

  #result(
    alone: FleetRun,
    fleet: FleetRun,
    facts: { readonly mapBytes: number; readonly memory: number },
  ): object {
    const { nodes, image, maps, peers, rate, spreadMs } = this.#settings;
    const round = (value: number): number => Math.round(value * 100) / 100;
    return {
      nodes,
      registryBytes: fleet.registry.bytes,
      workingSetBytes: alone.registry.bytes,
      mapBytes: facts.mapBytes,
      allReadyMs: Math.round(fleet.allReadyMs),
      image,
      imageBytes: labImage(image).bytes,
      maps,
      peers,
      rate,
      spreadMs,
      egressRatio: round(fleet.registry.bytes / alone.registry.bytes),
      registryRequests: fleet.registry.requestsByKind,
      aloneRequests: alone.registry.requestsByKind,
      aloneReadyMs: Math.round(alone.allReadyMs),
      nodeReadyMs: fleet.starts.map(({ readyMs }) => Math.round(readyMs)),
      cpuSeconds: {
        alone: round(alone.starts.reduce((sum, one) => sum + one.cpuSeconds, 0)),
        daemons: round(fleet.starts.reduce((sum, one) => sum + one.cpuSeconds, 0)),
        registry: round(fleet.registryCpuSeconds),
      },
      daemonsPssBytes: facts.memory,
      idleShare: round(fleet.idleShare),
      machine: { processors: cpus().length, memoryBytes: totalmem() },
    };
  }
}

async function memoryOf(tree: TreeLab): Promise<number> {
  const roles = await Promise.all(
    tree.nodes.map(async (node) => [...(await node.roles()).values()]),
  );
  const each = await Promise.all(roles.flat().map(pssOf));
  return each.reduce((sum, bytes) => sum + bytes, 0);
}

/** As the manager's node shows it: it knows all of it. */
async function drawnTree(tree: TreeLab): Promise<string> {
  const { manager } = (await tree.untilWhole()).epoch;
  const node = tree.nodes.find(({ name }) => name === manager) ?? tree.node(0);
  return (await node.cli(["tree"])).stdout.trimEnd();
}

function readSettings(): Settings {
  const { values } = parseArgs({ options: OPTIONS });
  const image = IMAGES.find((name) => name === values.image);
  if (image === undefined) throw new Error(`no such image: ${values.image} (${IMAGES.join(", ")})`);
  if (values.maps !== "known" && values.maps !== "none") throw new Error("--maps known or none");
  const nodes = Number(values.nodes);
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > 200) throw new Error("--nodes 1 to 200");
  const spreadMs = Number(values.spread) * 1000;
  if (!(spreadMs >= 0 && spreadMs <= 600_000)) throw new Error("--spread 0 to 600 seconds");
  const { rate, json, "no-peers": noPeers } = values;
  return { nodes, image, maps: values.maps, spreadMs, rate, peers: !noPeers, json };
}

const chosen = readSettings();
await withLab(async (lab) => {
  await new Demonstration(lab, chosen).run();
});
