import assert from "node:assert/strict";
import { DaemonError, type ErrorCode } from "../../../src/base/errors.ts";
import {
  IMPLICIT,
  IMPLICIT_ROOT_XATTR,
  IMPLICIT_XATTR,
  OPAQUE_XATTR,
} from "../../../src/image/layer-xattrs.ts";
import { acl, GROUP_OWNER, MASK, OTHER, OWNER, USER } from "../../support/acl.ts";
import {
  END,
  packTar,
  paxHeader,
  rawHeader,
  rawMember,
  type PackedMember,
} from "../../support/layers/index.ts";
import type { TreeBuilder } from "../../../src/image/tree/tree-builder.ts";
import { buildTree, lookup, modeOf } from "./parse-tar.ts";

const TAR = (...parts: Buffer[]): Buffer => Buffer.concat([...parts, END]);

async function build(...members: PackedMember[]): Promise<TreeBuilder> {
  return buildTree(await packTar(members));
}

function rejects(tar: Buffer, message: RegExp, code: ErrorCode = "invalid-argument"): void {
  assert.throws(
    () => buildTree(tar),
    (error) => error instanceof DaemonError && message.test(error.message) && error.code === code,
  );
}

const ACCESS = "system.posix_acl_access";

function mark(tree: TreeBuilder, path: string): Uint8Array | undefined {
  return lookup(tree, path)?.attributes.xattrs.get(IMPLICIT_XATTR);
}

function marks(tree: TreeBuilder, path: string): string[] {
  return [...(lookup(tree, path)?.attributes.xattrs.keys() ?? [])];
}

const dir = (name: string, mode = 0o755): PackedMember => ({ name, type: "directory", mode });
const file = (name: string, data = "x"): PackedMember => ({ name, data });
const link = (name: string, linkname: string): PackedMember => ({ name, type: "link", linkname });
const symlink = (name: string, linkname: string): PackedMember => ({
  name,
  type: "symlink",
  linkname,
});

describe("TreeBuilder", () => {
  it("normalises ./, absolute and doubled slashes, and .. inside the root", async () => {
    const tree = await build(file("./a"), file("/b"), file("c//d"), file("e/./f"), file("x/../g"));
    for (const path of ["a", "b", "c/d", "e/f", "g"]) assert.ok(lookup(tree, path), path);
    assert.equal(lookup(tree, "x"), undefined);
  });

  it("refuses paths out of the root, too long and with overlong names", () => {
    rejects(TAR(rawMember({ name: "../a" })), /tar entry "..\/a" .*climbs out of the root/);
    rejects(TAR(rawMember({ name: "a/../../b" })), /climbs out of the root/);
    rejects(TAR(paxHeader([["path", "n".repeat(256)]]), rawMember({})), /name of 256 bytes/);
    rejects(TAR(paxHeader([["path", "d/".repeat(2049)]]), rawMember({})), /path of 4098 bytes/);
  });

  it("lets the later of equal paths win", async () => {
    const tree = await build(file("a", "one"), { ...file("a", "three"), mode: 0o600 });
    const data = lookup(tree, "a")?.data;
    assert.ok(data?.kind === "extents" && data.size === 5);
    assert.equal(modeOf(tree, "a"), "100600");
  });

  it("replaces a directory by a file with all it holds, and back", async () => {
    const tree = await build(dir("d"), file("d/a"), file("d"), dir("e"), file("f"), dir("f"));
    assert.equal(lookup(tree, "d")?.entries, undefined);
    assert.equal(lookup(tree, "f")?.entries?.size, 0);
  });

  it("merges a repeated directory: new attributes, old children", async () => {
    const tree = await build(dir("d", 0o700), file("d/a"), dir("d", 0o711));
    assert.equal(modeOf(tree, "d"), "40711");
    assert.ok(lookup(tree, "d/a"));
  });

  it("makes missing parents 0755 of root and marks them", async () => {
    const tree = await build(file("p/q/a"), dir("later/x"), dir("later", 0o700));
    assert.equal(modeOf(tree, "p/q"), "40755");
    assert.deepEqual(marks(tree, "p/q"), [IMPLICIT_XATTR]);
    assert.deepEqual(mark(tree, "p"), IMPLICIT.named);
    assert.deepEqual(mark(tree, "p/q"), IMPLICIT.inNamed);
    assert.deepEqual(mark(tree, "later"), IMPLICIT.describedLater);
    assert.equal(modeOf(tree, "later"), "40700");
    const replaced = await build(file("a/x"), file("a"), dir("a"));
    assert.deepEqual(marks(replaced, "a"), []);
  });

  it("gives a missing parent the group of a set-group-ID directory, without the bit", async () => {
    const members = [{ ...dir("s", 0o2775), gid: 7 }, file("s/p/q/a"), file("t/p/a")];
    const tree = await build(...members, { ...dir("t", 0o2775), gid: 8 }, file("t/q/a"));
    const groups = ["s/p", "s/p/q", "t/p", "t/q"].map((path) => {
      assert.equal(modeOf(tree, path), "40755");
      return lookup(tree, path)?.attributes.gid;
    });
    assert.deepEqual(groups, [7, 0, 0, 8]);
    const found = ["s/p", "s/p/q", "t/p", "t/q"].map((path) => mark(tree, path));
    assert.deepEqual(found, [IMPLICIT.named, IMPLICIT.inNamed, IMPLICIT.inNamed, IMPLICIT.named]);
  });

  it("writes a mode into the ACL that the entry or an earlier one of the file has", () => {
    const named = (bits: number): Buffer =>
      acl([OWNER, bits], [USER, 5, 1000], [GROUP_OWNER, 4], [MASK, bits], [OTHER, bits]);
    const record = [[`SCHILY.xattr.${ACCESS}`, named(7).toString("latin1")]] as const;
    const bare = acl([OWNER, 7], [GROUP_OWNER, 7], [OTHER, 7]).toString("latin1");
    const tree = buildTree(
      TAR(
        paxHeader(record),
        rawMember({ name: "alone", mode: 0o666 }),
        paxHeader(record),
        rawMember({ name: "linked", mode: 0o777 }),
        rawMember({ name: "link", typeflag: "1", linkname: "linked", mode: 0o444 }),
        paxHeader(record),
        rawMember({ name: "twice", typeflag: "5", mode: 0o777 }),
        rawMember({ name: "twice", typeflag: "5", mode: 0o555 }),
        paxHeader(record),
        rawMember({ name: "gone", typeflag: "5", mode: 0o777 }),
        paxHeader([[`SCHILY.xattr.${ACCESS}`, bare]]),
        rawMember({ name: "gone", typeflag: "5", mode: 0o700 }),
        rawMember({ name: "later/x" }),
        paxHeader([[`SCHILY.xattr.${ACCESS}`, bare]]),
        rawMember({ name: "later", typeflag: "5", mode: 0o700 }),
      ),
    );
    const found = (path: string): Uint8Array | undefined =>
      lookup(tree, path)?.attributes.xattrs.get(ACCESS);
    assert.deepEqual(found("alone"), named(6));
    assert.deepEqual(found("linked"), named(4));
    assert.deepEqual(found("twice"), named(5));
    assert.equal(found("gone"), undefined);
    // It takes away the one of a lower layer, if there is one.
    assert.deepEqual(found("later"), acl());
  });

  it("takes only the time of an entry for the root", async () => {
    const without = await build(file("a"));
    assert.deepEqual(marks(without, ""), [IMPLICIT_ROOT_XATTR]);
    const tree = await build({ ...dir("./", 0o700), uid: 5 });
    assert.deepEqual(marks(tree, ""), []);
    assert.equal(modeOf(tree, ""), "40755");
    assert.equal(tree.root.attributes.uid, 0);
    assert.equal(tree.root.attributes.mtimeSec, 1_000_000_000);
  });

  it("shares one inode between the names of a hard link", async () => {
    const tree = await build(file("a"), dir("d"), link("d/b", "/a"), link("c", "./d/b"));
    assert.equal(lookup(tree, "a"), lookup(tree, "d/b"));
    assert.equal(lookup(tree, "a"), lookup(tree, "c"));
  });

  it("applies a hard link's attributes to the inode, and the kernel's loss of capabilities", () => {
    const tree = buildTree(
      TAR(
        paxHeader([
          ["SCHILY.xattr.security.capability", "cap"],
          ["SCHILY.xattr.user.a", "1"],
        ]),
        rawMember({ name: "a", mode: 0o755 }),
        paxHeader([["SCHILY.xattr.user.b", "2"]]),
        rawMember({ name: "b", typeflag: "1", linkname: "a", mode: 0o700, uid: 9, mtime: 7 }),
      ),
    );
    assert.deepEqual(marks(tree, "a"), ["user.a", "user.b"]);
    const attributes = lookup(tree, "a")?.attributes;
    assert.deepEqual([attributes?.mode, attributes?.uid, attributes?.mtimeSec], [0o100700, 9, 7]);
  });

  it("hard-links a symlink itself, not its target", async () => {
    const tree = await build(file("t"), symlink("s", "t"), link("h", "s"));
    assert.equal(lookup(tree, "h"), lookup(tree, "s"));
    assert.equal(modeOf(tree, "h"), "120777");
  });

  it("refuses hard links to what the layer does not hold, to itself and to directories", async () => {
    const missing = /hard link to "(x|h)", which is not in this layer/;
    rejects(await packTar([link("h", "x")]), missing, "unimplemented");
    rejects(await packTar([file("h"), link("h", "h")]), missing, "unimplemented");
    rejects(await packTar([dir("d"), link("h", "d")]), /hard link to a directory/);
    rejects(await packTar([link("h", "../x")]), /link target: path climbs out/);
  });

  it("follows symlinks of the layer in parents, never out of the root", async () => {
    const tree = await build(
      dir("usr"),
      dir("usr/lib"),
      symlink("lib", "usr/lib"),
      file("lib/a"),
      symlink("usr/abs", "/usr/lib"),
      file("usr/abs/b"),
      symlink("up", "../../../usr"),
      file("up/c"),
      symlink("dangling", "not/yet"),
      file("dangling/d"),
      link("e", "lib/a"),
    );
    assert.ok(lookup(tree, "usr/lib/a"));
    assert.ok(lookup(tree, "usr/lib/b"));
    assert.ok(lookup(tree, "usr/c"));
    assert.ok(lookup(tree, "not/yet/d"));
    assert.equal(modeOf(tree, "lib"), "120777");
    assert.equal(lookup(tree, "e"), lookup(tree, "usr/lib/a"));
  });

  it("refuses symlink loops and files as parents", async () => {
    rejects(
      await packTar([symlink("a", "b"), symlink("b", "a"), file("a/x")]),
      /too many symlinks/,
    );
    rejects(await packTar([file("f"), file("f/x")]), /its parent "f" is not a directory/);
    rejects(await packTar([file(".wh.f"), file("f/x")]), /its parent "f" is not a directory/);
  });

  it("turns whiteouts into devices 0/0", async () => {
    const tree = await build(file("d/.wh.gone"), file(".wh.top"), file(".wh.top"));
    for (const path of ["d/gone", "top"]) {
      const inode = lookup(tree, path);
      assert.equal(inode?.attributes.mode, 0o020000, path);
      assert.deepEqual([inode.attributes.rdevMajor, inode.attributes.rdevMinor], [0, 0]);
    }
    assert.equal(lookup(tree, "d/.wh.gone"), undefined);
  });

  it("marks opaque directories, described before or after", async () => {
    const tree = await build(
      dir("a"),
      file("a/.wh..wh..opq"),
      file("b/.wh..wh..opq"),
      dir("b", 0o700),
      file("b/x"),
      file(".wh..wh..opq"),
    );
    assert.deepEqual(marks(tree, "a"), [OPAQUE_XATTR]);
    assert.deepEqual(marks(tree, "b"), [IMPLICIT_XATTR, OPAQUE_XATTR]);
    assert.equal(modeOf(tree, "b"), "40700");
    assert.deepEqual(marks(tree, ""), [IMPLICIT_ROOT_XATTR, OPAQUE_XATTR]);
  });

  it("lets an opaque mark remove nothing of its own layer, as the image-spec has it", async () => {
    const tree = await build(file("d/named/a"), dir("d/said"), file("d/.wh..wh..opq"));
    assert.ok(lookup(tree, "d/named/a"));
    assert.ok(lookup(tree, "d/said"));
  });

  it("skips aufs bookkeeping and refuses whiteouts of no name", async () => {
    const tree = await build(file(".wh..wh.plnk"), file(".wh..wh.aufs"));
    assert.equal(tree.root.entries?.size, 0);
    for (const name of [".wh.", ".wh..", ".wh...", "d/.wh.."]) {
      rejects(await packTar([file(name)]), /whiteout of no name/);
    }
  });

  it("keeps an entry beside its own whiteout, in either order", async () => {
    const before = await build(file(".wh.a"), file("a"), file(".wh.d"), dir("d"));
    assert.equal(modeOf(before, "a"), "100644");
    assert.deepEqual(marks(before, "d"), []);
    const after = await build(file("a"), file(".wh.a"), dir("d"), file(".wh.d"));
    assert.equal(modeOf(after, "a"), "100644");
    assert.deepEqual(marks(after, "d"), [OPAQUE_XATTR]);
  });

  it("keeps only xattrs that the kernel would take, and none of overlayfs's own", () => {
    const value = acl([OWNER, 6], [USER, 4, 5], [GROUP_OWNER, 4], [MASK, 4], [OTHER, 4]);
    const text = value.toString("latin1");
    const records = [
      ["SCHILY.xattr.user.u", "1"],
      ["SCHILY.xattr.trusted.overlay.opaque", "y"],
      ["SCHILY.xattr.security.selinux", "s"],
      ["SCHILY.xattr.system.posix_acl_access", text],
      ["SCHILY.xattr.system.posix_acl_default", text],
      ["SCHILY.xattr.system.other", "o"],
      ["SCHILY.xattr.com.apple.quarantine", "q"],
    ] as const;
    const tree = buildTree(
      TAR(
        paxHeader(records),
        rawMember({ name: "file" }),
        paxHeader(records),
        rawMember({ name: "dir", typeflag: "5" }),
        paxHeader(records),
        rawMember({ name: "link", typeflag: "2", linkname: "x" }),
        paxHeader(records),
        rawMember({ name: "fifo", typeflag: "6" }),
      ),
    );
    assert.deepEqual(marks(tree, "file"), ["security.selinux", ACCESS, "user.u"]);
    assert.deepEqual(marks(tree, "dir"), [
      "security.selinux",
      ACCESS,
      "system.posix_acl_default",
      "user.u",
    ]);
    assert.deepEqual(marks(tree, "link"), ["security.selinux"]);
    assert.deepEqual(marks(tree, "fifo"), ["security.selinux", ACCESS]);
    rejects(
      TAR(paxHeader([["SCHILY.xattr.system.posix_acl_access", "bad"]]), rawMember({})),
      /malformed system.posix_acl_access/,
    );
  });

  it("refuses owners, devices and targets out of range", () => {
    rejects(TAR(paxHeader([["uid", "4294967295"]]), rawMember({})), /owner 4294967295:0 is out/);
    rejects(TAR(paxHeader([["gid", "-1"]]), rawMember({})), /owner 0:-1 is out of range/);
    rejects(TAR(rawHeader({ typeflag: "3", devmajor: 4096 })), /device number 4096:0 is out/);
    rejects(TAR(rawHeader({ typeflag: "2", linkname: "" })), /symlink target of 0 bytes/);
    rejects(
      TAR(paxHeader([["linkpath", "x".repeat(4096)]]), rawHeader({ typeflag: "2" })),
      /symlink target of 4096 bytes/,
    );
  });

  it("places file data in the tar stream", async () => {
    const tar = await packTar([file("a", "1".repeat(700)), file("b", "22"), file("empty", "")]);
    const tree = buildTree(tar);
    const extentOf = (path: string): unknown => {
      const data = lookup(tree, path)?.data;
      return data?.kind === "extents" ? data.extents : data?.kind;
    };
    assert.deepEqual(extentOf("a"), [{ fileOffset: 0, length: 700, device: 1, deviceOffset: 512 }]);
    assert.deepEqual(extentOf("b"), [{ fileOffset: 0, length: 2, device: 1, deviceOffset: 2048 }]);
    assert.equal(extentOf("empty"), "none");
  });

  it("counts what it saw", async () => {
    const tree = await build(
      dir("d"),
      file("d/a", "123"),
      link("b", "d/a"),
      symlink("s", "x"),
      { name: "p", type: "fifo" },
      file(".wh.w"),
    );
    assert.deepEqual(tree.counts, {
      entries: 6,
      files: 1,
      directories: 1,
      symlinks: 1,
      hardLinks: 1,
      specials: 1,
      whiteouts: 1,
      fileBytes: 3,
    });
  });
});
