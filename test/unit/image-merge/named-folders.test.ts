/** Directories that a layer names as a parent before it describes them, if ever. */
import assert from "node:assert/strict";
import { ErofsReader, writeErofs, type ErofsInodeInput } from "../../../src/erofs/index.ts";
import { IMPLICIT, IMPLICIT_XATTR, mergeLayers } from "../../../src/image/merge/index.ts";
import { acl, GROUP_OWNER, MASK, OTHER, OWNER, USER } from "../../support/acl.ts";
import { describeImage, type ManifestEntry } from "../../support/erofs/manifest.ts";
import { directory, file, symlink, xattrs } from "../../support/erofs/trees.ts";

const ACCESS = "system.posix_acl_access";

type Entries = Readonly<Record<string, ErofsInodeInput>>;

const marked = (mark: Uint8Array): ReadonlyMap<string, Uint8Array> =>
  new Map([[IMPLICIT_XATTR, mark]]);
const named = (entries: Entries, gid = 0): ErofsInodeInput =>
  directory(entries, { gid, xattrs: marked(IMPLICIT.named) });
const inNamed = (entries: Entries): ErofsInodeInput =>
  directory(entries, { xattrs: marked(IMPLICIT.inNamed) });

/** Layers bottom first; what is at the path of the merged tree. */
function at(path: string, ...roots: ErofsInodeInput[]): ManifestEntry {
  const layers = roots.map((root) =>
    ErofsReader.open(writeErofs(root, { devices: [{ bytes: 4096 }] })),
  );
  const device = Buffer.alloc(4096);
  const image = ErofsReader.open(mergeLayers(layers));
  const found = describeImage(
    image,
    roots.map(() => device),
  ).find((entry) => entry.path === path);
  assert.ok(found !== undefined, `${path} is missing`);
  return found;
}

describe("directories that a layer only names, merged", () => {
  const x = file("x");

  it("keep the group of their own layer's set-group-ID parent where nothing is below", () => {
    const top = directory({ s: directory({ d: named({ x }, 7) }, { mode: 0o2755, gid: 7 }) });
    assert.equal(at("/s/d", top).owner, "0:7");
    const below = directory({ s: directory({ d: directory({}, { uid: 1, gid: 2 }) }) });
    assert.equal(at("/s/d", below, top).owner, "1:2");
  });

  it("take the group of a parent that has the bit from a layer below", () => {
    const low = directory({ s: directory({}, { mode: 0o2755, gid: 9 }) });
    const top = directory({ s: named({ d: inNamed({ e: inNamed({ x }) }) }) });
    assert.equal(at("/s/d", low, top).owner, "0:9");
    assert.equal(at("/s/d", low, top).mode, "40755");
    assert.equal(at("/s/d/e", low, top).owner, "0:0");
    assert.equal(at("/s/d", directory({}), top).owner, "0:0");
    // Further layers find the group in the layer that has it.
    assert.equal(at("/s/d", low, top, top).owner, "0:9");
    // The parent was described when it was named: its own group was known.
    const described = directory({ s: directory({ d: named({ x }) }, { gid: 3 }) });
    assert.equal(at("/s/d", low, described).owner, "0:0");
  });

  it("keep xattrs from below when they are described later, under those of their own", () => {
    const below = { "user.a": "below", "user.b": "below", "trusted.t": "below" };
    const low = directory({ d: directory({}, { uid: 1, xattrs: xattrs(below) }) });
    const own = new Map([
      ...marked(IMPLICIT.describedLater),
      ["user.b", Buffer.from("own")] as const,
    ]);
    const top = directory({ d: directory({ x }, { uid: 2, mode: 0o700, xattrs: own }) });
    const found = at("/d", low, top);
    assert.equal(found.owner, "2:0");
    assert.equal(found.mode, "40700");
    const hex = (text: string): string => Buffer.from(text).toString("hex");
    assert.deepEqual(found.xattrs, { "user.a": hex("below"), "user.b": hex("own") });
  });

  it("then also keep an ACL from below, with their own mode, unless they take it away", () => {
    const value = (bits: number): Buffer =>
      acl([OWNER, bits], [USER, 5, 1000], [GROUP_OWNER, 4], [MASK, bits], [OTHER, bits]);
    const low = directory({ d: directory({}, { xattrs: new Map([[ACCESS, value(7)]]) }) });
    const later = (own: ReadonlyMap<string, Uint8Array>): ErofsInodeInput =>
      directory({ d: directory({ x }, { mode: 0o444, xattrs: own }) });
    const kept = later(marked(IMPLICIT.describedLater));
    assert.deepEqual(at("/d", low, kept).xattrs, { [ACCESS]: value(4).toString("hex") });
    const taken = later(new Map([...marked(IMPLICIT.describedLater), [ACCESS, acl()]]));
    assert.deepEqual(at("/d", low, taken).xattrs, {});
    assert.deepEqual(at("/d", taken).xattrs, {});
  });

  it("are searched for through the symlinks of a layer below, never out of its root", () => {
    const top = directory({ lib: named({ deep: inNamed({ x }) }) });
    for (const target of ["usr/lib", "/usr/lib", "../../usr/./lib", "no/../usr/lib", "hop"]) {
      const lib = directory({ deep: directory({}, { gid: 6 }) }, { uid: 5 });
      const low = directory({
        lib: symlink(target),
        hop: symlink("usr/lib"),
        usr: directory({ lib }),
      });
      assert.equal(at("/lib", low, top).owner, "5:0", target);
      assert.equal(at("/lib/deep", low, top).owner, "0:6", target);
    }
    const circle = directory({ lib: symlink("lib") });
    assert.equal(
      at("/lib", directory({ lib: directory({}, { uid: 5 }) }), circle, top).owner,
      "5:0",
    );
    const dangling = directory({ lib: symlink("nowhere") });
    const lowest = directory({ lib: directory({ deep: directory({}, { uid: 8 }) }) });
    assert.equal(at("/lib/deep", lowest, dangling, top).owner, "8:0");
    const toFile = directory({ lib: symlink("file"), file: file("f") });
    assert.equal(at("/lib", lowest, toFile, top).owner, "0:0");
  });

  it("take what the symlink's end has by the layers below that one", () => {
    const lowest = directory({ usr: directory({ lib: directory({}, { uid: 4 }) }) });
    const middle = directory({
      lib: symlink("usr/lib"),
      usr: named({ lib: inNamed({ x }) }),
    });
    assert.equal(at("/lib", lowest, middle, directory({ lib: named({ x }) })).owner, "4:0");
  });
});
