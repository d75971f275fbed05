import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError, errorMessage } from "../../../src/base/errors.ts";
import {
  ErofsReader,
  FILE_TYPE,
  writeErofs,
  type ErofsData,
  type ErofsInodeInput,
} from "../../../src/erofs/index.ts";
import {
  IMPLICIT_ROOT_XATTR,
  IMPLICIT_XATTR,
  mergeLayers,
  OPAQUE_XATTR,
} from "../../../src/image/merge/index.ts";
import { fixChecksum } from "../../support/erofs/checksum.ts";
import { describeImage, describeTree, type ManifestEntry } from "../../support/erofs/manifest.ts";
import {
  deviceBytes,
  directory,
  file,
  special,
  symlink,
  treeArbitrary,
  whiteout,
  xattrs,
} from "../../support/erofs/trees.ts";

const OPAQUE = xattrs({ [OPAQUE_XATTR]: "y" });
const IMPLICIT = { [IMPLICIT_XATTR]: "y" };

function layer(root: ErofsInodeInput, bytes = 4096): ErofsReader {
  return ErofsReader.open(writeErofs(root, { devices: [{ bytes }] }));
}

/** Layers bottom first. */
function merged(...roots: ErofsInodeInput[]): ManifestEntry[] {
  const image = mergeLayers(roots.map((root) => layer(root)));
  const devices = roots.map((_root, index) => deviceBytes(8, index + 1));
  return describeImage(ErofsReader.open(image), devices);
}

function paths(entries: readonly ManifestEntry[]): string[] {
  return entries.map((entry) => entry.path);
}

function at(entries: readonly ManifestEntry[], path: string): ManifestEntry {
  const entry = entries.find((candidate) => candidate.path === path);
  assert.ok(entry !== undefined, `${path} is missing`);
  return entry;
}

function onDevice(block: number): ErofsData {
  const extent = { fileOffset: 0, length: 512, device: 1, deviceOffset: block * 512 };
  return { kind: "extents", size: 512, extents: [extent] };
}

describe("mergeLayers", () => {
  it("keeps a single layer as it is", () => {
    const device = deviceBytes(20, 1);
    fc.assert(
      fc.property(treeArbitrary([device.length]), (root) => {
        const image = mergeLayers([layer(root, device.length)]);
        const found = describeImage(ErofsReader.open(image), [device]);
        assert.deepEqual(found, describeTree(root, [device]).filter(isSeen));
      }),
      { numRuns: 40 },
    );
  });

  it("gives the same bytes for the same layers, and merges every prefix of a chain", () => {
    const device = deviceBytes(20, 1);
    const trees = fc.array(treeArbitrary([device.length]), { minLength: 2, maxLength: 4 });
    fc.assert(
      fc.property(trees, (roots) => {
        const layers = roots.map((root) => layer(root, device.length));
        for (let count = 1; count <= layers.length; count += 1) {
          const prefix = layers.slice(0, count);
          assert.deepEqual(mergeLayers(prefix), mergeLayers(prefix));
        }
      }),
      { numRuns: 15 },
    );
  });

  it("merges directories, with the upper one's attributes and a link count of 1", () => {
    const found = merged(
      directory({ d: directory({ a: file("lower"), b: file("b") }, { uid: 1, mode: 0o700 }) }),
      directory({ d: directory({ a: file("upper"), c: directory() }, { uid: 2, mode: 0o711 }) }),
    );
    assert.deepEqual(paths(found), ["", "/d", "/d/a", "/d/b", "/d/c"]);
    assert.equal(at(found, "/d").owner, "2:0");
    assert.equal(at(found, "/d").mode, "40711");
    assert.equal(at(found, "/d").nlink, 1);
    assert.equal(at(found, "/d/c").nlink, 2);
    assert.equal(at(found, "/d/a").size, 5);
  });

  it("moves each layer's data to its own device", () => {
    const image = mergeLayers([
      layer(directory({ a: file(onDevice(1)) }), 4096),
      layer(directory({ b: file(onDevice(2)) }), 8192),
    ]);
    const reader = ErofsReader.open(image);
    assert.deepEqual(reader.deviceBytes, [4096, 8192]);
    const data = reader.data(reader.lookup(reader.rootNid, "b") ?? 0);
    assert.deepEqual(data, {
      kind: "extents",
      size: 512,
      extents: [{ fileOffset: 0, length: 512, device: 2, deviceOffset: 1024 }],
    });
  });

  it("lets whiteouts hide and vanish, also over nothing", () => {
    const found = merged(
      directory({ a: file("a"), d: directory({ x: file("x") }), k: file("k"), w: whiteout() }),
      directory({ a: whiteout(), d: whiteout(), none: whiteout() }),
    );
    assert.deepEqual(paths(found), ["", "/k"]);
  });

  it("lets a name come back above its whiteout without what was below", () => {
    const found = merged(
      directory({ d: directory({ old: file("x") }) }),
      directory({ d: whiteout() }),
      directory({ d: directory({ young: file("y") }) }),
    );
    assert.deepEqual(paths(found), ["", "/d", "/d/young"]);
    assert.equal(at(found, "/d").nlink, 2);
  });

  it("replaces files by directories and directories by files", () => {
    const found = merged(
      directory({ a: directory({ x: file("x") }), b: file("b"), c: directory({ y: file("y") }) }),
      directory({ a: file("a"), b: directory({ z: file("z") }), c: symlink("a") }),
      directory({ c: directory({ w: file("w") }) }),
    );
    assert.deepEqual(paths(found), ["", "/a", "/b", "/b/z", "/c", "/c/w"]);
  });

  it("takes nothing from below an opaque directory and drops the mark", () => {
    const found = merged(
      directory({ d: directory({ a: file("a") }), e: directory({ a: file("a") }) }),
      directory({ d: directory({ b: file("b") }, { xattrs: OPAQUE }) }),
      directory({
        d: directory({ c: file("c") }),
        e: directory({}, { xattrs: xattrs({ [OPAQUE_XATTR]: "n" }) }),
      }),
    );
    assert.deepEqual(paths(found), ["", "/d", "/d/b", "/d/c", "/e", "/e/a"]);
    assert.deepEqual(at(found, "/d").xattrs, {});
  });

  it("pays no heed to an opaque root, as overlayfs", () => {
    const found = merged(directory({ a: file("a") }), directory({}, { xattrs: OPAQUE }));
    assert.deepEqual(paths(found), ["", "/a"]);
  });

  it("keeps hard links, and the link count of their layer where names are hidden", () => {
    const linked = file("x");
    const found = merged(
      directory({ a: linked, b: linked, d: directory({ c: linked }) }),
      directory({ b: file("new"), d: whiteout() }),
    );
    assert.deepEqual(paths(found), ["", "/a", "/b"]);
    assert.equal(at(found, "/a").nlink, 3);
    assert.equal(at(found, "/b").nlink, 1);
    const both = merged(directory({ a: linked, b: linked }), directory());
    assert.equal(at(both, "/b").identity, "/a");
  });

  it("hides overlayfs's own xattrs, keeps escaped and other ones", () => {
    const names = xattrs({
      "trusted.overlay.redirect": "/x",
      "trusted.overlay.metacopy": "",
      "trusted.overlay.origin": "1",
      "trusted.overlay.overlay.opaque": "y",
      "trusted.overlay": "2",
      "trusted.other": "3",
      "user.overlay.opaque": "y",
    });
    const found = merged(directory({ a: file("a", { xattrs: names }) }));
    assert.deepEqual(Object.keys(at(found, "/a").xattrs), [
      "trusted.other",
      "trusted.overlay",
      "trusted.overlay.overlay.opaque",
      "user.overlay.opaque",
    ]);
  });

  it("keeps devices that are no whiteouts", () => {
    const node = special(FILE_TYPE.characterDevice, { rdevMajor: 0, rdevMinor: 1 });
    const block = special(FILE_TYPE.blockDevice);
    assert.deepEqual(paths(merged(directory({ node, block }))), ["", "/block", "/node"]);
  });
});

describe("mergeLayers: attributes that nobody described", () => {
  it("takes the root of the topmost layer that describes it, else 0755 of root", () => {
    const mark = xattrs({ [IMPLICIT_ROOT_XATTR]: "y" });
    const low = directory({}, { mode: 0o700, uid: 1 });
    const middle = directory({}, { mode: 0o711, uid: 2 });
    const implicit = directory({}, { mode: 0o755, xattrs: mark });
    assert.equal(at(merged(low, middle, implicit), "").owner, "2:0");
    assert.deepEqual(at(merged(implicit), "").xattrs, {});
    assert.equal(at(merged(implicit, implicit), "").mtime, "0.000000000");
  });

  it("takes those of the directory below for a parent that is only named", () => {
    const named = directory({ new: file("x") }, { xattrs: xattrs(IMPLICIT) });
    const described = directory(
      { old: file("x") },
      { uid: 7, mode: 0o700, xattrs: xattrs({ "user.a": "1", "trusted.t": "1" }) },
    );
    const found = merged(directory({ d: described }), directory(), directory({ d: named }));
    assert.equal(at(found, "/d").owner, "7:0");
    assert.equal(at(found, "/d").mode, "40700");
    assert.deepEqual(at(found, "/d").xattrs, { "user.a": "31" });
    assert.deepEqual(paths(found), ["", "/d", "/d/new", "/d/old"]);
    assert.equal(at(merged(directory({ d: named })), "/d").mode, "40755");
  });

  it("takes them also through an opaque mark, in a directory of its own, and over several layers", () => {
    const inner = directory({ x: file("x") }, { xattrs: xattrs(IMPLICIT) });
    const named = directory({ inner }, { xattrs: xattrs({ ...IMPLICIT, [OPAQUE_XATTR]: "y" }) });
    const below = directory({ inner: directory({ y: file("y") }, { gid: 9 }) }, { gid: 8 });
    const found = merged(directory({ d: below }), directory({ d: named }), directory({ d: named }));
    assert.equal(at(found, "/d").owner, "0:8");
    assert.equal(at(found, "/d/inner").owner, "0:9");
    assert.deepEqual(paths(found), ["", "/d", "/d/inner", "/d/inner/x"]);
  });

  it("takes 0755 of root where a file or whiteout stands below", () => {
    const named = directory({ x: file("x") }, { xattrs: xattrs(IMPLICIT) });
    const lowest = directory({ d: directory({}, { uid: 5 }) });
    for (const between of [file("x"), whiteout()]) {
      const found = merged(lowest, directory({ d: between }), directory({ d: named }));
      assert.equal(at(found, "/d").owner, "0:0");
    }
  });
});

describe("mergeLayers on hostile layers", () => {
  it("ends and throws nothing but data-loss", () => {
    const mutation = fc.record({ at: fc.nat(), value: fc.integer({ min: 0, max: 255 }) });
    const trees = treeArbitrary([4096], { maxLength: 25 });
    fc.assert(
      fc.property(
        trees,
        trees,
        fc.array(mutation, { minLength: 1, maxLength: 8 }),
        (low, high, changes) => {
          const image = writeErofs(high, { devices: [{ bytes: 4096 }] });
          for (const { at: place, value } of changes) {
            image.writeUInt8(value, 1280 + (place % (image.length - 1280)));
          }
          try {
            mergeLayers([layer(low), ErofsReader.open(fixChecksum(image))]);
          } catch (error) {
            if (!(error instanceof DaemonError && error.code === "data-loss")) throw error;
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it("refuses a directory that is its own child", () => {
    const image = writeErofs(directory({ loop: directory() }), { devices: [] });
    const reader = ErofsReader.open(image);
    const root = reader.rootNid;
    const child = reader.lookup(root, "loop") ?? 0;
    for (let place = root * 32; place + 4 <= image.length; place += 1) {
      if (image.readUInt32LE(place) === child) image.writeUInt32LE(root, place);
    }
    assert.throws(() => mergeLayers([reader]), { code: "data-loss" });
  });

  it("refuses layers that name the same things again and again", () => {
    // Many directories whose entries are the same bytes: each needs no room of its own.
    const many = directory();
    for (let index = 0; index < 2000; index += 1) many.entries?.set(`d${index}`, directory());
    const linked = directory();
    const one = file("x");
    for (let index = 0; index < 2000; index += 1) linked.entries?.set(`f${index}`, one);
    const image = writeErofs(directory({ linked, many }), { devices: [] });
    const reader = ErofsReader.open(image);
    const from = (reader.lookup(reader.rootNid, "linked") ?? 0) * 32;
    const target = reader.lookup(reader.rootNid, "many") ?? 0;
    const inode = image.subarray(from, from + 32);
    // Whole blocks only: compact, flat, 64 blocks.
    inode.writeUInt16LE(0, 0);
    inode.writeUInt32LE(64 * 512, 8);
    for (const { nid } of reader.readDir(target)) inode.copy(image, nid * 32);
    assert.throws(
      () => mergeLayers([ErofsReader.open(fixChecksum(image))]),
      (error) => errorMessage(error).includes("more items than they have room for"),
    );
  });

  it("refuses no layers, too many, too deep, and more than one device", () => {
    assert.throws(() => mergeLayers([]), { code: "invalid-argument" });
    const one = layer(directory());
    assert.throws(() => mergeLayers(new Array<ErofsReader>(501).fill(one)), /501 layers/);
    const two = writeErofs(directory(), { devices: [{ bytes: 512 }, { bytes: 512 }] });
    assert.throws(() => mergeLayers([ErofsReader.open(two)]), /more than one data device/);
    let deep = directory();
    for (let depth = 0; depth < 2050; depth += 1) deep = directory({ d: deep });
    assert.throws(
      () => mergeLayers([layer(deep)]),
      (error) => errorMessage(error).includes("nested more than"),
    );
  });
});

/** A generated tree may hold a whiteout by chance; the merge never shows one. */
function isSeen(entry: ManifestEntry): boolean {
  return !(entry.mode.startsWith("2") && entry.mode.length === 5 && entry.rdev === "0:0");
}
