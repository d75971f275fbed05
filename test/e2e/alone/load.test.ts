/** Every mode under load: all of a tree at once, many small random reads, mapped files, find. */
import assert from "node:assert/strict";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  Lab,
  SNAPSHOTTER,
  dropCaches,
  imageFacts,
  mountView,
  needs,
  run,
  startStack,
  unmountUnder,
  type MountMode,
  type Stack,
} from "../../support/lab/index.ts";

/**
 * The goal is 0.15 s for 27,000 entries (the image has 31,684) on a machine that does nothing else:
 * bench/file-trees.ts measures that. Here twice as much passes: other work may go on beside.
 */
const FIND_SECONDS_MAX = (2 * 0.15 * 31_684) / 27_000;
const FIND_ROUNDS_MAX = 15;

const MODES = ["erofs", "loop", "fuse"] as const satisfies readonly MountMode[];
/** All of the image once; the other modes differ in what serves a file, not in which. */
const ARCHIVED = {
  erofs: { path: ".", bytesMin: 800_000_000 },
  loop: { path: "./usr/lib/python3", bytesMin: 80_000_000 },
  fuse: { path: "./usr/lib/python3", bytesMin: 80_000_000 },
} as const;

describe("A lazy mount under load", function () {
  this.timeout(120_000);
  let lab: Lab;
  let stack: Stack;

  before(async function () {
    const commands = ["fio", "tar", "find"];
    const images = ["pysci"] as const;
    needs(this, { root: true, fuse: true, program: true, containerd: ["2"], images, commands });
    lab = await Lab.create();
    stack = await startStack(lab);
    const { containerd, registry } = stack;
    await containerd.pull(registry.reference("pysci"), { snapshotter: SNAPSHOTTER });
  });

  after(async () => {
    await lab[Symbol.asyncDispose]();
  });

  for (const mode of MODES) describeMode(mode, () => ({ lab, stack }));
});

function describeMode(mode: (typeof MODES)[number], given: () => { lab: Lab; stack: Stack }): void {
  describe(`in ${mode} mode`, () => {
    let folder: string;

    before(async () => {
      const { lab, stack } = given();
      const { containerd, daemon, registry } = stack;
      await daemon.reconfigure(containerd.address, { mode });
      // Warm by the making of the map or the mode before; now as a node that only has the map.
      await daemon.cacheClear();
      const top = (await imageFacts(registry, "pysci")).chainIds.at(-1) ?? "";
      folder = await mountView(lab, containerd, top, SNAPSHOTTER);
    });

    after(() => unmountUnder(folder));

    async function largestLibrary(): Promise<string> {
      const library = join(folder, "usr/lib/x86_64-linux-gnu");
      const found = await run("find", [
        library,
        "-name",
        "lib*blas*.so*",
        "-type",
        "f",
        "-size",
        "+4M",
      ]);
      const [first] = found.stdout.split("\n");
      assert.ok(first !== undefined && first !== "", "no large library in the image");
      return first;
    }

    function fio(file: string, engine: string): readonly string[] {
      const what = ["--name=read", "--rw=randread", "--bs=4k", `--filename=${file}`, "--readonly"];
      return [...what, "--thread", "--numjobs=8", "--io_size=2m", `--ioengine=${engine}`];
    }

    it("answers 4 KiB random reads of several readers at once", async () => {
      await run("fio", fio(await largestLibrary(), "psync"));
    });

    it("answers 4 KiB random reads of a mapped file", async () => {
      await run("fio", fio(await largestLibrary(), "mmap"));
    });

    it("executes programs that map their libraries", async () => {
      const script = "import numpy; print(numpy.ones(9).sum())";

      const { stdout } = await run("chroot", [folder, "/usr/bin/python3", "-c", script]);

      assert.equal(stdout, "9.0\n");
    });

    it("gives all of its files to tar", async () => {
      const { path, bytesMin } = ARCHIVED[mode];

      const { stdout } = await run("sh", [
        "-c",
        `tar -C "$1" -cf - "$2" | wc -c`,
        "tar",
        folder,
        path,
      ]);

      assert.ok(Number(stdout) > bytesMin, stdout);
    });

    it("shows find every entry", async () => {
      const { stdout } = await run("sh", ["-c", `find "$1" -xdev -ls | wc -l`, "find", folder]);

      assert.ok(Number(stdout) > 30_000, stdout);
      assert.ok((await readdir(folder)).includes("usr"));
    });

    if (mode !== "erofs") return;
    it(`shows find every entry within ${FIND_SECONDS_MAX.toFixed(2)} s, page-cold`, async () => {
      const taken: number[] = [];
      // The best of several: other work of the machine only makes it slower.
      while (taken.length < FIND_ROUNDS_MAX && Math.min(...taken) > FIND_SECONDS_MAX) {
        await dropCaches();
        await run("find", ["--version"]); // find itself is not what is cold
        // Asks for every inode, and prints nothing.
        taken.push((await run("find", [folder, "-xdev", "-size", "+1000000M"])).seconds);
      }

      const best = Math.min(...taken);
      process.stdout.write(`      ${taken.map((one) => one.toFixed(2)).join(", ")} s\n`);
      assert.ok(best <= FIND_SECONDS_MAX, `${best} s`);
    });
  });
}
