/** Readers of missing blocks wait for a registry that says nothing; nobody else notices. */
import assert from "node:assert/strict";
import { access } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  Front,
  Lab,
  SNAPSHOTTER,
  dropCaches,
  eventually,
  imageFacts,
  labImage,
  mountView,
  needs,
  run,
  startStack,
  type RunResult,
  type Stack,
} from "../../support/lab/index.ts";

const READERS = 30;
const P99_NS_MAX = 10_000_000;
const DIES_WITHIN_MS = 1000;

interface FioReport {
  readonly jobs: readonly [
    {
      readonly read: {
        readonly clat_ns: { readonly percentile: Readonly<Record<string, number>> };
      };
    },
  ];
}

/** 4 KiB random reads of a file, its pages dropped before; the 99th percentile. */
async function p99Ns(file: string): Promise<number> {
  const what = ["--name=read", "--rw=randread", "--bs=4k", `--filename=${file}`, "--readonly"];
  const how = ["--ioengine=psync", "--io_size=4m", "--invalidate=1", "--output-format=json"];
  const { stdout } = await run("fio", [...what, ...how], { timeoutMs: 30_000 });
  const report = JSON.parse(stdout) as FioReport;
  return report.jobs[0].read.clat_ns.percentile["99.000000"] ?? Number.NaN;
}

async function largeFiles(folder: string): Promise<readonly string[]> {
  const found = await run("find", [folder, "-xdev", "-type", "f", "-size", "+64k"]);
  return found.stdout.split("\n").filter((path) => path !== "");
}

describe("Readers that are stalled by the registry", function () {
  this.timeout(120_000);
  let lab: Lab;
  let stack: Stack;
  let front: Front;
  let stalling: string;
  let other: string;

  before(async function () {
    const images = ["pysci", "pg"] as const;
    const what = { root: true, fuse: true, program: true, containerd: ["2"], images } as const;
    needs(this, { ...what, commands: ["fio"] });
    lab = await Lab.create();
    stack = await startStack(lab);
    const { containerd, daemon, registry } = stack;
    front = await Front.start(lab, registry.address);
    await containerd.pull(front.reference("pysci"), { snapshotter: SNAPSHOTTER });
    await containerd.pull(registry.reference("pg"), { snapshotter: SNAPSHOTTER });
    await daemon.cacheClear();
    const view = async (name: string): Promise<string> => {
      const top = (await imageFacts(registry, name)).chainIds.at(-1) ?? "";
      return mountView(lab, containerd, top, SNAPSHOTTER);
    };
    stalling = await view("pysci");
    other = await view("pg");
  });

  after(async () => {
    front.release();
    await lab[Symbol.asyncDispose]();
  });

  function holdLayers(): void {
    const layers = labImage("pysci").layers.map((layer) => layer.digest);
    front.setRule(({ path }) => (layers.some((digest) => path.endsWith(digest)) ? "hold" : "pass"));
  }

  it(`keeps present blocks below 10 ms (p99) beside ${READERS} of them`, async () => {
    const present = join(stalling, "usr/bin/perl");
    const elsewhere = join(other, "usr/lib/postgresql/15/bin/postgres");
    for (const file of [present, elsewhere]) await run("cat", [file]);
    const candidates = await largeFiles(join(stalling, "usr/lib/python3"));
    assert.ok(candidates.length >= 2 * READERS, "too few files to stall on");
    holdLayers();

    const running = new Map<string, Promise<RunResult>>();
    for (const file of candidates) {
      if (running.size >= READERS) break;
      const reader = run("dd", [`if=${file}`, "of=/dev/null", "bs=4k", "count=1", "skip=3"]);
      running.set(file, reader);
      void reader.finally(() => running.delete(file)); // its block was there already
      await sleep(20);
    }
    await sleep(500);
    const stalled = running.size;
    const [p99Here, p99There] = [await p99Ns(present), await p99Ns(elsewhere)];
    const readers = [...running.values()];
    front.release();
    await Promise.all(readers);

    process.stdout.write(
      `      ${stalled} stalled; p99 ${(p99Here / 1e6).toFixed(2)} ms here, ` +
        `${(p99There / 1e6).toFixed(2)} ms in another image\n`,
    );
    assert.ok(stalled >= READERS - 2, `only ${stalled} readers are stalled`);
    assert.ok(p99Here < P99_NS_MAX, `p99 of present blocks of the image: ${p99Here} ns`);
    assert.ok(p99There < P99_NS_MAX, `p99 of another image: ${p99There} ns`);
  });

  it("die within 1 s of kill -9, in a container", async () => {
    const { containerd, daemon } = stack;
    await daemon.cacheClear();
    await dropCaches();
    const shell = (script: string): Promise<RunResult> =>
      containerd.runContainer(front.reference("pysci"), ["/bin/sh", "-c", script], {
        snapshotter: SNAPSHOTTER,
        allowFailure: true,
      });
    await shell("cat /bin/cat | wc -c"); // what the container needs to come to its read
    holdLayers();
    const container = shell("cat /usr/lib/python3/dist-packages/scipy/linalg/*.so | wc -c");
    const pid = await eventuallyPid(containerd);
    await eventually("the container waits for a block", () => front.heldCount > 0);

    process.kill(pid, "SIGKILL");
    const killed = performance.now();
    await eventually(
      "the container's process is gone",
      () =>
        access(`/proc/${pid}`).then(
          () => false,
          () => true,
        ),
      { timeoutMs: DIES_WITHIN_MS, everyMs: 5 },
    );

    process.stdout.write(`      gone after ${(performance.now() - killed).toFixed(0)} ms\n`);
    front.release();
    await container;
  });

  async function eventuallyPid(containerd: Stack["containerd"]): Promise<number> {
    let pid = 0;
    await eventually("the container runs", async () => {
      const { stdout } = await containerd.ctr(["tasks", "ls"]);
      pid = Number(/^\S+\s+(\d+)\s+RUNNING/m.exec(stdout)?.[1] ?? 0);
      return pid > 0;
    });
    return pid;
  }
});
