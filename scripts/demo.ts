/**
 * The demonstration: one image of a private registry, pulled and run by a private containerd, first
 * by overlayfs, then through our snapshotter; the closing table sets them side by side.
 */
import { parseArgs } from "node:util";
import {
  Containerd,
  Registry,
  SNAPSHOTTER,
  dropCaches,
  labImage,
  startStack,
  walkTree,
  withLab,
  imageFacts,
  mountView,
  type Lab,
  type LabImageName,
  type MountMode,
} from "../test/support/lab/index.ts";

/** What a container of each image does: its first line of output is what a user waits for. */
const WORK: Readonly<Partial<Record<LabImageName, readonly string[]>>> = {
  pysci: ["python3", "-c", "import numpy; print('numpy', numpy.__version__, numpy.eye(3).trace())"],
  node: ["node", "/app/server.js"],
  pg: ["/usr/lib/postgresql/15/bin/postgres", "--version"],
};

interface Start {
  readonly pullSeconds: number;
  /** From the start of the pull, or of the run when nothing is pulled, to the first output. */
  readonly firstSeconds: number;
  readonly line: string;
}

interface Row {
  readonly what: string;
  readonly first: number;
  readonly fetched: number;
  readonly note: string;
}

const say = (text: string): void => {
  process.stdout.write(`${text}\n`);
};
const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

class Demonstration {
  readonly #lab: Lab;
  readonly #image: LabImageName;
  readonly #command: readonly string[];
  readonly rows: Row[] = [];

  constructor(lab: Lab, image: LabImageName) {
    this.#lab = lab;
    this.#image = image;
    this.#command = WORK[image] ?? [];
  }

  async #start(
    containerd: Containerd,
    reference: string,
    snapshotter: string,
    pull: boolean,
  ): Promise<Start> {
    const pulled = pull
      ? await containerd.pull(reference, { snapshotter, timeoutMs: 300_000 })
      : undefined;
    const ran = await containerd.runContainer(reference, this.#command, { snapshotter });
    const pullSeconds = pulled?.seconds ?? 0;
    const [line = ""] = ran.stdout.split("\n");
    return {
      pullSeconds,
      firstSeconds: pullSeconds + (ran.firstOutputSeconds ?? ran.seconds),
      line,
    };
  }

  async overlayfs(): Promise<void> {
    const registry = await Registry.start(this.#lab);
    const containerd = await Containerd.start(this.#lab, { line: "2" });
    const reference = registry.reference(this.#image);
    await dropCaches();
    const mark = await registry.mark();
    const cold = await this.#start(containerd, reference, "overlayfs", true);
    const { bytes } = await registry.traffic(mark);
    const warm = await this.#start(containerd, reference, "overlayfs", false);
    say(`overlayfs: ${cold.line}`);
    this.#row("overlayfs: pull everything, run", cold.firstSeconds, bytes, "");
    this.#row("overlayfs: run again", warm.firstSeconds, 0, "");
    await containerd[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
  }

  async ours(mode: MountMode): Promise<string> {
    const { registry, daemon, containerd } = await startStack(this.#lab, { mode });
    const reference = registry.reference(this.#image);
    const status = await daemon.status();
    say(`faasnet: ${status.mode} mode (${status.modeReason})`);

    const mapMark = await registry.mark();
    const first = await this.#start(containerd, reference, SNAPSHOTTER, true);
    const mapped = await registry.traffic(mapMark);
    say(`faasnet: ${first.line}`);
    this.#row(
      "faasnet: first ever (makes the map)",
      first.firstSeconds,
      mapped.bytes,
      "once per image",
    );

    // As on a node that has the map: the image unknown to containerd, nothing of it cached.
    await containerd.ctr(["image", "rm", "--sync", reference]);
    await daemon.cacheClear();
    await dropCaches();
    const mark = await registry.mark();
    const cold = await this.#start(containerd, reference, SNAPSHOTTER, true);
    const fetched = await registry.traffic(mark);
    const note = `${fetched.ranges} ranges, pull ${cold.pullSeconds.toFixed(2)} s`;
    this.#row("faasnet: pull and run, cold cache", cold.firstSeconds, fetched.bytes, note);

    const warmMark = await registry.mark();
    const warm = await this.#start(containerd, reference, SNAPSHOTTER, false);
    const again = await registry.traffic(warmMark);
    this.#row("faasnet: run again", warm.firstSeconds, again.bytes, "");

    const top = (await imageFacts(registry, this.#image)).chainIds.at(-1) ?? "";
    const view = await mountView(this.#lab, containerd, top, SNAPSHOTTER);
    const tree = await walkTree(view, { content: false });
    const sizes = [...tree.values()].map((entry) => (entry.type === "f" ? Number(entry.size) : 0));
    const unpacked = sizes.reduce((sum, size) => sum + size, 0);
    const pss = await daemon.pssBytes();
    const processes = (await daemon.processes()).length;
    const { layers, bytes } = labImage(this.#image);
    return [
      `image     ${this.#image}: ${layers.length} layers, ${megabytes(bytes)} compressed, ` +
        `${tree.size} paths, ${megabytes(unpacked)} unpacked`,
      `mode      ${status.mode}`,
      `memory    ${megabytes(pss)} (PSS) in ${processes} processes of ours`,
    ].join("\n");
  }

  #row(what: string, first: number, fetched: number, note: string): void {
    this.rows.push({ what, first, fetched, note });
    say(`  ${what}: first line after ${first.toFixed(2)} s, ${megabytes(fetched)} fetched`);
  }

  table(): string {
    const image = megabytes(labImage(this.#image).bytes);
    const header = ["", "first line", "bytes in image", "bytes fetched", ""];
    const cells = this.rows.map((row) => [
      row.what,
      `${row.first.toFixed(2)} s`,
      image,
      megabytes(row.fetched),
      row.note,
    ]);
    const all = [header, ...cells];
    const widths = header.map((_title, at) =>
      Math.max(...all.map((line) => line[at]?.length ?? 0)),
    );
    return all
      .map((line) =>
        line
          .map((cell, at) =>
            at === 0 || at === 4 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0),
          )
          .join("  ")
          .trimEnd(),
      )
      .join("\n");
  }
}

function isDemoImage(name: string): name is LabImageName {
  return Object.hasOwn(WORK, name);
}

function isMode(mode: string): mode is MountMode {
  return ["auto", "erofs", "loop", "fuse"].includes(mode);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      mode: { type: "string", default: "auto" },
      image: { type: "string", default: "pysci" },
      "overlayfs-only": { type: "boolean", default: false },
    },
  });
  const { image, mode } = values;
  if (!isDemoImage(image)) throw new Error(`no such demo: ${image} (pysci, node or pg)`);
  if (!isMode(mode)) throw new Error(`no such mode: ${mode} (auto, erofs, loop or fuse)`);
  await withLab(async (lab) => {
    const demonstration = new Demonstration(lab, image);
    say(`demo: ${image}, private containerd and registry in ${lab.folder}`);
    await demonstration.overlayfs();
    const facts = values["overlayfs-only"] ? "" : await demonstration.ours(mode);
    say(`\n${demonstration.table()}\n\n${facts}`);
  });
}

await main();
