import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { ErofsReader, writeErofs, type ErofsInodeInput } from "../../../src/erofs/index.ts";
import {
  assertSameTree,
  describeImage,
  describeTree,
  type ManifestEntry,
} from "../../support/erofs/manifest.ts";
import { describeMount, Scratch } from "../../support/erofs/mounted.ts";
import {
  deviceBytes,
  directory,
  file,
  layerArbitrary,
  treeArbitrary,
} from "../../support/erofs/trees.ts";
import { erofsTools, needs } from "../../support/lab/index.ts";

const run = promisify(execFile);
const DEVICES = [deviceBytes(40, 1), deviceBytes(7, 2)];
const FSCK = join(erofsTools, "fsck.erofs");
const MKFS = join(erofsTools, "mkfs.erofs");
const DUMP = join(erofsTools, "dump.erofs");

async function write(
  scratch: Scratch,
  root: ErofsInodeInput,
): Promise<{ image: string; devices: string[] }> {
  const sizes = DEVICES.map((device) => ({ bytes: device.length }));
  const image = await scratch.write("image.erofs", writeErofs(root, { devices: sizes }));
  const devices: string[] = [];
  for (const device of DEVICES) devices.push(`--device=${await scratch.write("data", device)}`);
  return { image, devices };
}

function sampleTrees(numRuns: number, maxLength: number): ErofsInodeInput[] {
  const sizes = DEVICES.map((device) => device.length);
  return fc.sample(treeArbitrary(sizes, { maxLength }), { numRuns, seed: 5 });
}

/** fsck.erofs 1.9 extracts a file without the hole at its end (the kernel shows it). */
function cutLastHoles(inode: ErofsInodeInput): void {
  const { data } = inode;
  if (data.kind === "extents") {
    const last = data.extents.at(-1);
    const size = last === undefined ? 0 : last.fileOffset + last.length;
    inode.data = { ...data, size };
  }
  for (const child of inode.entries?.values() ?? []) cutLastHoles(child);
}

/** mkfs.erofs adds a mark of its own to opaque directories. */
function unmarked(entry: ManifestEntry): ManifestEntry {
  const { "trusted.overlay.origin": _origin, ...xattrs } = entry.xattrs;
  return { ...entry, xattrs };
}

/** Where trees are extracted to: ext4 keeps the years 1901 to 2446, and clamps other times. */
function clampTime(mtime: string): string {
  const sec = Number(mtime.split(".")[0]);
  if (sec < -(2 ** 31)) return `${-(2 ** 31)}.000000000`;
  return sec >= 15_032_385_536 ? "15032385535.000000000" : mtime;
}

/** What fsck.erofs extracts: no sockets, no modes of symlinks (Linux has none). */
function extracted(entries: readonly ManifestEntry[]): unknown[] {
  return entries
    .filter((entry) => !entry.mode.startsWith("14"))
    .map(({ path, mode: full, owner, rdev, size, content, identity, mtime }) => {
      const mode = full.startsWith("12") ? "120777" : full;
      return { path, mode, owner, rdev, size, content, identity, mtime: clampTime(mtime) };
    });
}

describe("erofs images and erofs-utils", function () {
  this.timeout(60_000);

  before(function () {
    needs(this, { files: [FSCK, DUMP, MKFS], root: true });
  });

  it("are sound to fsck.erofs, with all data", async () => {
    for (const root of sampleTrees(10, 120)) {
      await using scratch = await Scratch.create();
      const { image, devices } = await write(scratch, root);
      await run(FSCK, ["--extract", ...devices, image]);
    }
  });

  it("are extracted by fsck.erofs to the tree that was written", async () => {
    for (const root of sampleTrees(4, 60)) {
      cutLastHoles(root);
      await using scratch = await Scratch.create();
      const { image, devices } = await write(scratch, root);
      const target = scratch.name("extracted");
      await run(FSCK, [`--extract=${target}`, "--preserve", ...devices, image]);
      assert.deepEqual(extracted(describeMount(target)), extracted(describeTree(root, DEVICES)));
    }
  });

  it("are read here as well when mkfs.erofs wrote them", async () => {
    for (const [index, root] of fc.sample(layerArbitrary, { numRuns: 4, seed: 2 }).entries()) {
      await using scratch = await Scratch.create();
      const source = await scratch.unpack(root, []);
      const target = scratch.name("mkfs.erofs");
      const blockBytes = index % 2 === 0 ? "512" : "4096";
      await run(MKFS, ["--quiet", "-b", blockBytes, "-x", "2", target, source]);
      const found = describeImage(ErofsReader.open(await readFile(target)), []);
      assertSameTree(found.map(unmarked), describeMount(source).map(unmarked));
    }
  });

  it("are what dump.erofs says", async () => {
    await using scratch = await Scratch.create();
    const root = directory({ a: file("a"), b: file("b"), d: directory({ c: file("c") }) });
    const { image } = await write(scratch, root);
    const { stdout } = await run(DUMP, ["-s", image]);
    assert.match(stdout, /blocksize: +512\n/);
    assert.match(stdout, /inode count: +5\n/);
    assert.match(stdout, /compatible features: +sb_csum mtime \n/);
    assert.match(stdout, /incompatible features: +chunked_file device_table \n/);
  });
});
