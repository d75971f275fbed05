import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  ErofsInodeInput,
  ErofsReader,
  FILE_TYPE,
  piecesOf,
  writeErofs,
  type ErofsData,
  type ErofsInode,
} from "../../../src/erofs/index.ts";
import {
  attributes,
  directory,
  file,
  special,
  symlink,
  whiteout,
  xattrs,
} from "../../support/erofs/trees.ts";

const GIB = 1024 ** 3;

function written(
  entries: Readonly<Record<string, ErofsInodeInput>>,
  devices: readonly number[] = [],
): { reader: ErofsReader; image: Buffer; inode: (name: string) => ErofsInode } {
  const image = writeErofs(directory(entries), { devices: devices.map((bytes) => ({ bytes })) });
  const reader = ErofsReader.open(image);
  const inode = (name: string): ErofsInode =>
    reader.inode(reader.lookup(reader.rootNid, name) ?? -1);
  return { reader, image, inode };
}

function isExtended(image: Buffer, inode: ErofsInode): boolean {
  return (image.readUInt16LE(inode.nid * 32) & 1) === 1;
}

function extentsOf(size: number, ...extents: [number, number, number, number][]): ErofsData {
  return {
    kind: "extents",
    size,
    extents: extents.map(([fileOffset, length, device, deviceOffset]) => {
      return { fileOffset, length, device, deviceOffset };
    }),
  };
}

describe("writeErofs: inodes", () => {
  it("writes a compact inode where it loses nothing", () => {
    const { image, inode } = written({ a: file("x"), b: file("y"), c: file("z") });
    assert.equal(isExtended(image, inode("a")), false);
  });

  it("writes an extended inode for another mtime, a large id, size or link count", () => {
    const many = file("x");
    many.nlink = 70_000;
    const { image, inode } = written(
      {
        plain: file("x"),
        plain2: file("x"),
        time: file("x", { mtimeSec: 1 }),
        nsec: file("x", { mtimeNsec: 1 }),
        uid: file("x", { uid: 65_536 }),
        gid: file("x", { gid: 65_536 }),
        large: file(extentsOf(5 * GIB)),
        many,
      },
      [512],
    );
    const extended = ["time", "nsec", "uid", "gid", "large", "many"];
    for (const name of extended) assert.equal(isExtended(image, inode(name)), true, name);
    assert.equal(isExtended(image, inode("plain")), false);
    assert.equal(inode("many").nlink, 70_000);
  });

  it("takes the commonest mtime, also a negative one, for compact inodes", () => {
    const old = { mtimeSec: -5, mtimeNsec: 999_999_999 };
    const { image, inode } = written({ a: file("", old), b: file("", old), c: file("", old) });
    assert.equal(isExtended(image, inode("a")), false);
    assert.equal(inode("a").mtimeSec, -5);
    assert.equal(inode("a").mtimeNsec, 999_999_999);
  });

  it("keeps device numbers of 12 and 20 bits", () => {
    const mode = FILE_TYPE.blockDevice | 0o660;
    const { inode } = written({
      a: special(mode, { rdevMajor: 0xfff, rdevMinor: 0xfffff }),
      w: whiteout(),
    });
    assert.deepEqual([inode("a").rdevMajor, inode("a").rdevMinor], [0xfff, 0xfffff]);
    assert.deepEqual([inode("w").rdevMajor, inode("w").rdevMinor], [0, 0]);
  });

  it("counts links, unless told", () => {
    const twice = file("x");
    const told = file("x");
    told.nlink = 5;
    const sub = directory({ deep: directory(), again: twice });
    const { reader, inode } = written({ a: twice, b: twice, sub, told });
    assert.equal(inode("a").nlink, 3);
    assert.equal(inode("a").nid, inode("b").nid);
    assert.equal(inode("told").nlink, 5);
    assert.equal(inode("sub").nlink, 3);
    assert.equal(reader.inode(reader.rootNid).nlink, 3);
  });

  it("keeps long symlinks", () => {
    for (const length of [1, 447, 448, 449, 480, 511, 512, 513, 1024, 4095]) {
      const target = "t".repeat(length);
      const { reader, inode } = written({ s: symlink(target), x: file("") });
      assert.equal(reader.readlink(inode("s")), target);
    }
  });
});

describe("writeErofs: order", () => {
  /** Enough names for whole blocks. */
  function crowd(): ErofsInodeInput {
    const names = Array.from({ length: 200 }, (_, at) => `entry-${String(at).padStart(3, "0")}`);
    return directory(Object.fromEntries(names.map((name) => [name, file("")])));
  }

  it("puts a directory's blocks right before the inodes of its entries", () => {
    const { reader, inode } = written({ a: crowd(), b: crowd(), z: file("") });
    for (const name of ["a", "b"]) {
      const place = inode(name);
      const blocks = Math.floor(place.size / 512);
      assert.ok(blocks > 3);
      const behind = (place.place.union + blocks) * 512;
      // The first few may fill gaps before the blocks.
      const last = (reader.lookup(place.nid, "entry-199") ?? 0) * 32;
      assert.ok(last > behind && last < behind + 200 * 64, `${last} behind ${behind}`);
    }
    assert.ok(inode("a").place.union > inode("z").nid / 16);
  });

  it("places a directory without new entries, too", () => {
    const twin = crowd();
    const again = directory(Object.fromEntries(twin.entries ?? new Map<string, ErofsInodeInput>()));
    const { reader, inode } = written({ a: twin, b: again });
    assert.equal(
      reader.lookup(inode("b").nid, "entry-199"),
      reader.lookup(inode("a").nid, "entry-199"),
    );
    assert.notEqual(inode("a").place.union, inode("b").place.union);
  });
});

describe("writeErofs: data", () => {
  it("describes contiguous data of any size by one chunk", () => {
    const size = 6 * GIB + 100;
    const { reader, inode } = written({ a: file(extentsOf(size, [0, size, 1, 512])) }, [7 * GIB]);
    const data = reader.data(inode("a"));
    assert.deepEqual(data, extentsOf(size, [0, size, 1, 512]));
    assert.equal(inode("a").place.union & 0x1f, 24);
  });

  it("cuts a sparse file at its holes", () => {
    const mib = 1024 * 1024;
    const data = extentsOf(64 * mib, [mib, mib, 1, 512], [10 * mib, 4096, 1, mib + 512]);
    const { reader, inode } = written({ a: file(data) }, [2 * mib]);
    assert.deepEqual(reader.data(inode("a")), data);
    assert.deepEqual(piecesOf(data, { start: mib - 10, end: mib + 10 }), [
      { kind: "zeros", length: 10 },
      { kind: "device", device: 1, deviceOffset: 512, length: 10 },
    ]);
  });

  it("keeps holes of terabytes", () => {
    const tib = 1024 ** 4;
    const data = extentsOf(2 ** 52, [tib, tib, 1, 0]);
    const { reader, inode } = written({ a: file(data), b: file(extentsOf(9 * tib + 5)) }, [tib]);
    assert.deepEqual(reader.data(inode("a")), data);
    assert.deepEqual(reader.data(inode("b")), extentsOf(9 * tib + 5));
  });

  it("joins pieces that follow each other and leaves out empty ones", () => {
    const data = extentsOf(
      2000,
      [0, 512, 1, 0],
      [512, 1024, 1, 512],
      [1536, 0, 1, 0],
      [1536, 464, 1, 1536],
    );
    const { reader, inode } = written({ a: file(data) }, [4096]);
    assert.deepEqual(reader.data(inode("a")), extentsOf(2000, [0, 2000, 1, 0]));
  });

  it("refuses data that blocks of 512 bytes cannot address", () => {
    const bad: [string, ErofsData, RegExp][] = [
      ["device offset", extentsOf(512, [0, 512, 1, 100]), /not aligned/],
      ["file offset", extentsOf(1024, [100, 512, 1, 0]), /not aligned/],
      ["length", extentsOf(1024, [0, 100, 1, 0]), /not aligned/],
      ["overlap", extentsOf(2048, [0, 1024, 1, 0], [512, 512, 1, 0]), /overlaps/],
      ["beyond the file", extentsOf(512, [0, 1024, 1, 0]), /leaves the file/],
      ["beyond the device", extentsOf(1024, [0, 1024, 1, 3584]), /leaves device 1/],
      ["no device", extentsOf(512, [0, 512, 2, 0]), /device 2 of 1/],
      ["too many chunks", extentsOf(2 ** 40, [512, 512, 1, 0]), /chunks/],
    ];
    for (const [what, data, message] of bad) {
      assert.throws(() => written({ a: file(data) }, [4096]), message, what);
    }
  });

  it("refuses a device of more than 32 bits of blocks", () => {
    const bytes = 2 ** 32 * 512;
    assert.throws(() => writeErofs(directory(), { devices: [{ bytes }] }), /data device/);
    const image = writeErofs(directory(), { devices: [{ bytes: bytes - 512 }] });
    assert.deepEqual(ErofsReader.open(image).deviceBytes, [bytes - 512]);
  });
});

describe("writeErofs: xattrs", () => {
  it("keeps known names, drops those that no file system would take", () => {
    const found = xattrs({
      "user.a": "1",
      "system.posix_acl_access": "\x02\0\0\0",
      "system.posix_acl_default": "\x02\0\0\0",
      "trusted.t": "",
      "security.capability": "\x01\0",
      "system.other": "x",
      "system.posix_acl_access2": "x",
      "other.name": "x",
      noprefix: "x",
    });
    const { reader, inode } = written({ a: directory({}, { xattrs: found }) });
    assert.deepEqual([...reader.xattrs(inode("a")).keys()].sort(), [
      "security.capability",
      "system.posix_acl_access",
      "system.posix_acl_default",
      "trusted.t",
      "user.a",
    ]);
  });

  it("drops names that the kernel keeps from a type of file", () => {
    const found = xattrs({
      "user.a": "1",
      "system.posix_acl_access": "\x02\0\0\0",
      "system.posix_acl_default": "\x02\0\0\0",
      "trusted.t": "",
    });
    const { reader, inode } = written({
      fifo: special(FILE_TYPE.fifo, { xattrs: found }),
      link: symlink("x", { xattrs: found }),
      dir: directory({}, { xattrs: found }),
    });
    const names = (name: string): string[] => [...reader.xattrs(inode(name)).keys()].sort();
    assert.deepEqual(names("fifo"), ["system.posix_acl_access", "trusted.t"]);
    assert.deepEqual(names("link"), ["trusted.t"]);
    assert.equal(names("dir").length, 4);
  });

  it("keeps a repeated value once", () => {
    const value = "v".repeat(1000);
    const entries: Record<string, ErofsInodeInput> = {};
    for (let index = 0; index < 100; index += 1) {
      entries[`f${index}`] = file("", { xattrs: xattrs({ "security.selinux": value }) });
    }
    const { reader, image, inode } = written(entries);
    assert.ok(image.length < 20_000, `${image.length}`);
    assert.equal(image.toString("latin1").split(value).length, 2);
    assert.equal(Buffer.from(reader.xattrs(inode("f99")).values().next().value ?? "").length, 1000);
  });

  it("keeps more than 255 shared names of one file", () => {
    const record: Record<string, string> = {};
    for (let index = 0; index < 300; index += 1) record[`user.${index}`] = "some shared value";
    const found = xattrs(record);
    const { reader, inode } = written({
      a: file("", { xattrs: found }),
      b: file("x", { xattrs: new Map(found) }),
    });
    assert.deepEqual(new Map([...reader.xattrs(inode("b"))].sort()), new Map([...found].sort()));
  });

  it("refuses malformed names and values over 64 KiB", () => {
    const bad = [{ "user.": "" }, { "user.a\0": "" }, { [`user.${"n".repeat(251)}`]: "" }];
    for (const record of bad) {
      assert.throws(() => written({ a: file("", { xattrs: xattrs(record) }) }), /malformed xattr/);
    }
    const large = xattrs({ "user.a": "x".repeat(65_536) });
    assert.throws(() => written({ a: file("", { xattrs: large }) }), /too large/);
  });
});

describe("writeErofs: refusals and determinism", () => {
  it("refuses names that no directory can hold", () => {
    for (const name of ["", ".", "..", "a/b", "a\0", "\u0100", "n".repeat(256)]) {
      assert.throws(() => written({ [name]: file("") }), /file name/, name);
    }
  });

  it("refuses a directory in two places, and one within itself", () => {
    const twice = directory();
    assert.throws(() => written({ a: twice, b: twice }), /two places/);
    const loop = directory();
    loop.entries?.set("loop", loop);
    assert.throws(() => written({ loop }), /two places/);
  });

  it("refuses values beyond their fields", () => {
    const bad: ErofsInodeInput[] = [
      file("", { uid: 2 ** 32 }),
      file("", { gid: -1 }),
      file("", { mtimeNsec: 1e9 }),
      file("", { mtimeSec: 0.5 }),
      special(FILE_TYPE.characterDevice, { rdevMajor: 4096 }),
      special(0o644),
      symlink(""),
      symlink("a\0b"),
      symlink("t".repeat(4096)),
      new ErofsInodeInput(attributes(FILE_TYPE.fifo), {
        data: { kind: "inline", bytes: Buffer.from("x") },
      }),
      file({ kind: "extents", size: -1, extents: [] }),
    ];
    for (const [index, node] of bad.entries()) {
      assert.throws(() => written({ node }), { code: "invalid-argument" }, `case ${index}`);
    }
  });

  it("keeps its format: the digest of a fixed image does not change", () => {
    const old = { mtimeSec: -1, mtimeNsec: 5 };
    const { image } = written(
      {
        a: file(extentsOf(1000, [0, 1000, 1, 512]), { xattrs: xattrs({ "user.a": "b" }) }),
        d: directory({ "\xff": symlink("a", old) }, { mode: 0o1777 }),
        w: whiteout(),
      },
      [4096],
    );
    const digest = createHash("sha256").update(image).digest("hex");
    assert.equal(digest, DIGEST);
  });
});

/** Change it together with the version of whatever stores images. */
const DIGEST = "0c0a59d704d4c95e757c337f65cd0d9fdf2b5131e68bb311708fcceaa960f41f";
