import assert from "node:assert/strict";
import fc from "fast-check";
import { ErofsReader, writeErofs, type ErofsInodeInput } from "../../../src/erofs/index.ts";
import { mergeLayers } from "../../../src/image/merge/index.ts";
import type { ManifestEntry } from "../../support/erofs/manifest.ts";
import { describeMount, requireMount, Scratch } from "../../support/erofs/mounted.ts";
import { directory, file, layerArbitrary, xattrs } from "../../support/erofs/trees.ts";

const DEVICE = Buffer.alloc(512);

interface Mounted {
  /** Kernel overlayfs over the unpacked layers. */
  readonly expected: ManifestEntry[];
  readonly found: ManifestEntry[];
}

function merge(layers: readonly ErofsInodeInput[]): Buffer {
  const readers = layers.map((layer) => {
    return ErofsReader.open(writeErofs(layer, { devices: [{ bytes: DEVICE.length }] }));
  });
  return mergeLayers(readers);
}

async function mountMerged(scratch: Scratch, layers: readonly ErofsInodeInput[]): Promise<string> {
  return scratch.mountErofs(
    merge(layers),
    layers.map(() => DEVICE),
  );
}

async function unpackAll(scratch: Scratch, layers: readonly ErofsInodeInput[]): Promise<string[]> {
  const folders: string[] = [];
  for (const layer of layers) folders.push(await scratch.unpack(layer, []));
  return folders;
}

/** As a container sees them: below an upper directory. */
async function inContainer(layers: readonly ErofsInodeInput[]): Promise<Mounted> {
  await using scratch = await Scratch.create();
  const unpacked = await scratch.mountContainer(await unpackAll(scratch, layers));
  const merged = await scratch.mountContainer([await mountMerged(scratch, layers)]);
  return { expected: describeMount(unpacked), found: describeMount(merged) };
}

/** As a view shows them, without an upper directory; escaped xattrs are as they are stored. */
async function inView(layers: readonly ErofsInodeInput[]): Promise<Mounted> {
  await using scratch = await Scratch.create();
  const unpacked = await scratch.mountOverlay(await unpackAll(scratch, layers));
  const merged = await mountMerged(scratch, layers);
  const found = describeMount(merged).map((entry) => ({
    ...entry,
    xattrs: Object.fromEntries(
      Object.entries(entry.xattrs).map(([name, value]) => {
        return [name.replace("trusted.overlay.overlay.", "trusted.overlay."), value];
      }),
    ),
  }));
  return { expected: describeMount(unpacked), found };
}

describe("merged metadata beside kernel overlayfs", function () {
  this.timeout(120_000);

  before(async function () {
    await requireMount(this);
  });

  it("shows generated layers alike, in a container and in a view", async () => {
    const chains = fc.array(layerArbitrary, { minLength: 2, maxLength: 5 });
    for (const [index, layers] of fc.sample(chains, { numRuns: 12, seed: 11 }).entries()) {
      const container = await inContainer(layers);
      assert.deepEqual(container.found, container.expected, `chain ${index} in a container`);
      const view = await inView(layers);
      assert.deepEqual(view.found, view.expected, `chain ${index} in a view`);
    }
  });

  it("shows a single layer alike in a container", async () => {
    for (const layer of fc.sample(layerArbitrary, { numRuns: 5, seed: 3 })) {
      const { found, expected } = await inContainer([layer]);
      assert.deepEqual(found, expected);
    }
  });

  it("shows an opaque root alike", async () => {
    const opaque = xattrs({ "trusted.overlay.opaque": "y" });
    const layers = [
      directory({ a: file("a"), d: directory({ x: file("x") }) }),
      directory({ b: file("b"), d: directory({ y: file("y") }) }, { xattrs: opaque }),
      directory({ c: file("c") }),
    ];
    const { found, expected } = await inContainer(layers);
    assert.deepEqual(found, expected);
  });

  it("lets files be changed through an overlay above, with their xattrs", async () => {
    const layers = [
      directory({ a: file("a", { xattrs: xattrs({ "user.k": "v", "trusted.t": "w" }) }) }),
      directory({ b: file("b") }),
    ];
    await using scratch = await Scratch.create();
    const merged = await mountMerged(scratch, layers);
    const mounted = await scratch.mountContainer([merged], { isWritable: true });
    const before = describeMount(mounted);
    await scratch.append(`${mounted}/a`, "more");
    const after = describeMount(mounted);
    const find = (all: readonly ManifestEntry[]): ManifestEntry | undefined =>
      all.find((entry) => entry.path === "/a");
    assert.equal(find(after)?.size, 5);
    assert.deepEqual(find(after)?.xattrs, find(before)?.xattrs);
  });
});
