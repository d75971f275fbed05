import assert from "node:assert/strict";
import fc from "fast-check";
import { ErofsReader, writeErofs } from "../../../src/erofs/index.ts";
import { describeImage, describeTree } from "../../support/erofs/manifest.ts";
import { BLOCK, deviceBytes, directory, file, treeArbitrary } from "../../support/erofs/trees.ts";

const DEVICES = [deviceBytes(40, 1), deviceBytes(7, 2)];
const SIZES = DEVICES.map((device) => device.length);
const OPTIONS = { devices: SIZES.map((bytes) => ({ bytes })) };

describe("erofs round trip", () => {
  it("reads back every generated tree as it was written", () => {
    fc.assert(
      fc.property(treeArbitrary(SIZES), (root) => {
        const image = writeErofs(root, OPTIONS);
        const found = describeImage(ErofsReader.open(image), DEVICES);
        assert.deepEqual(found, describeTree(root, DEVICES));
        assert.equal(image.length % BLOCK, 0);
      }),
      { numRuns: 150 },
    );
  });

  it("gives the same bytes whatever the order in which names were added", () => {
    fc.assert(
      fc.property(treeArbitrary(SIZES), (root) => {
        const image = writeErofs(root, OPTIONS);
        reverseEntries(root);
        assert.deepEqual(writeErofs(root, OPTIONS), image);
      }),
      { numRuns: 50 },
    );
  });

  it("finds every name by search, and no other", () => {
    fc.assert(
      fc.property(treeArbitrary(SIZES, { maxLength: 80 }), (root) => {
        const reader = ErofsReader.open(writeErofs(root, OPTIONS));
        for (const dirent of reader.readDir(reader.rootNid)) {
          assert.equal(reader.lookup(reader.rootNid, dirent.name), dirent.nid);
          assert.equal(reader.lookup(reader.rootNid, `${dirent.name}\x01`), undefined);
        }
        assert.equal(reader.lookup(reader.rootNid, "no such name"), undefined);
      }),
      { numRuns: 50 },
    );
  });

  it("keeps 20,000 names of one directory and finds each", () => {
    const root = directory();
    const shared = file("x");
    const large = directory();
    root.entries?.set("large", large);
    for (let index = 0; index < 20_000; index += 1) {
      large.entries?.set(`${index}`.padEnd(1 + (index % 255), "é"), shared);
    }
    const reader = ErofsReader.open(writeErofs(root, { devices: [] }));
    const nid = reader.lookup(reader.rootNid, "large") ?? 0;
    const dirents = reader.readDir(nid);
    assert.equal(dirents.length, large.entries?.size);
    for (const { name } of dirents) assert.equal(reader.lookup(nid, name), dirents[0]?.nid);
    assert.equal(reader.inode(dirents[0]?.nid ?? 0).nlink, large.entries?.size);
  });
});

function reverseEntries(root: ReturnType<typeof directory>): void {
  if (root.entries === undefined) return;
  const entries = [...root.entries].reverse();
  root.entries.clear();
  for (const [name, child] of entries) {
    root.entries.set(name, child);
    reverseEntries(child);
  }
}
