/** Requests answered exactly once, in the form that fuse-native's C glue expects. */
import assert from "node:assert/strict";
import type Fuse from "fuse-native";
import type { NativeSignal } from "fuse-native";
import { EIO, ENODATA, ENOENT } from "../../../src/fuse/errno.ts";
import type { FuseAttributes, FuseFileSystem } from "../../../src/fuse/file-system.ts";
import {
  encodeDevice,
  encodeStat,
  encodeTimeMs,
  FuseOperations,
} from "../../../src/fuse/operations.ts";
import { CACHED_PATHS_MAX, PathResolver } from "../../../src/fuse/path-resolver.ts";

const FILE: FuseAttributes = {
  inode: 7,
  mode: 0o100644,
  nlink: 2,
  uid: 4_000_000_000,
  gid: 5,
  rdevMajor: 0,
  rdevMinor: 0,
  size: 5 * 2 ** 32 + 9,
  mtimeSec: 1_600_000_000,
  mtimeNsec: 123_999_999,
};

/** "/dir" is 2, "/dir/file" is 7, "/dir/caf\xe9" is 8; inode 9 throws, 10 rejects. */
function fakeFileSystem(): FuseFileSystem & { lookups: number } {
  const names = new Map([
    ["dir", 2],
    ["file", 7],
    ["caf\xe9", 8],
    ["throws", 9],
    ["rejects", 10],
  ]);
  return {
    rootInode: 1,
    lookups: 0,
    lookup(_parent, name) {
      this.lookups += 1;
      return names.get(name) ?? ENOENT;
    },
    getattr(inode) {
      if (inode === 9) throw new Error("broken");
      if (inode === 10) return Promise.reject(new Error("broken later"));
      return { ...FILE, inode };
    },
    readdir: () => [
      { name: "caf\xe9", inode: 8, mode: 0o100000 },
      { name: "caf\xe8", inode: 11, mode: 0o100000 },
      { name: "z\xc3\xbc", inode: 12, mode: 0o040000 },
    ],
    open: (inode) => ({
      read: (buffer) => {
        if (inode === 8) return Promise.resolve(EIO);
        return buffer.fill(1).length;
      },
    }),
    readlink: () => Buffer.from("target"),
    getxattr: (_inode, name) => (name === "user.a" ? Buffer.from("value") : ENODATA),
    listxattr: () => ["user.a", "user.bc"],
  };
}

class FakeNative {
  readonly answers: (readonly unknown[])[] = [];
  readonly failures: string[] = [];
  readonly operations: FuseOperations;
  firsts = 0;

  constructor(fileSystem: FuseFileSystem) {
    this.operations = new FuseOperations(
      fileSystem,
      (operation) => this.failures.push(operation),
      () => (this.firsts += 1),
    );
    this.operations.install(this as unknown as Fuse);
  }

  get native(): Fuse {
    return this as unknown as Fuse;
  }

  readonly signal: NativeSignal = (...values) => {
    this.answers.push(values);
  };
}

const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 10; turn += 1) await Promise.resolve();
};

describe("FuseOperations", () => {
  it("answers attributes in fuse-native's 18 words", () => {
    const words = encodeStat(FILE);
    assert.deepEqual(
      [...words],
      [
        0o100644,
        4_000_000_000,
        5,
        9,
        5,
        0,
        2,
        7,
        0,
        4096,
        ...[(Math.ceil(FILE.size / 512) % 2 ** 32) >>> 0, 0],
        ...Array.from({ length: 3 }, () => [1_600_000_000_123 % 2 ** 32, 372]).flat(),
      ],
    );
  });

  it("clamps times that fuse-native cannot carry", () => {
    assert.equal(encodeTimeMs(-2, 5), 0);
    assert.equal(encodeTimeMs(1, 999_999), 1000);
    assert.equal(encodeTimeMs(1, 1_000_000), 1001);
  });

  it("encodes device numbers as the kernel's new_encode_dev", () => {
    assert.equal(encodeDevice(5, 300), 0x0010052c);
    assert.equal(encodeDevice(4095, 0xfffff), 0xffffffff);
    assert.equal(encodeDevice(0, 0), 0);
  });

  it("answers -errno for what is not there, a throw and a rejection, each once", async () => {
    const fake = new FakeNative(fakeFileSystem());
    fake.native._op_getattr(fake.signal, "/none");
    fake.native._op_getattr(fake.signal, "/throws");
    fake.native._op_getattr(fake.signal, "/rejects");
    await settle();
    assert.deepEqual(fake.answers, [[-2], [-5], [-5]]);
    assert.deepEqual(fake.failures, ["getattr", "getattr"]);
    assert.equal(fake.firsts, 1);
  });

  it("finds a name that is not UTF-8 by what stands in for it, and lists such names once", async () => {
    const fake = new FakeNative(fakeFileSystem());
    fake.native._op_getattr(fake.signal, "/dir/caf\u{fffd}");
    await settle();
    assert.equal(fake.answers[0]?.[0], 0);
    fake.native._op_readdir(fake.signal, "/dir");
    assert.deepEqual(fake.answers[1]?.[1], ["caf\u{fffd}", "zü"]);
    const stats = fake.answers[1][2] as Uint32Array[];
    assert.deepEqual(
      stats.map((words) => [words[0], words[7]]),
      [
        [0o100000, 8],
        [0o040000, 12],
      ],
    );
  });

  it("reads whole answers or errors, and gives every buffer back", async () => {
    const fake = new FakeNative(fakeFileSystem());
    fake.native._op_open(fake.signal, "/dir/file", 0);
    fake.native._op_open(fake.signal, "/dir/caf\u{fffd}", 0);
    await settle();
    assert.deepEqual(fake.answers, [
      [0, 1],
      [0, 2],
    ]);
    const buffer = Buffer.alloc(16);
    fake.native._op_read(fake.signal, "", 1, buffer, 16, 0, 0);
    fake.native._op_read(fake.signal, "", 2, buffer, 16, 0, 0);
    fake.native._op_read(fake.signal, "", 99, buffer, 16, 0, 0);
    await settle();
    assert.deepEqual(
      fake.answers.slice(2).map((answer) => [answer[0], Object.is(answer[2], buffer.buffer)]),
      [
        [16, true],
        [-9, true],
        [-5, true],
      ],
    );
  });

  it("uses the numbers of closed files again", async () => {
    const fake = new FakeNative(fakeFileSystem());
    fake.native._op_open(fake.signal, "/dir/file", 0);
    fake.native._op_release(fake.signal, "/dir/file", 1);
    fake.native._op_release(fake.signal, "/dir/file", 1);
    fake.native._op_open(fake.signal, "/dir/file", 0);
    fake.native._op_open(fake.signal, "/dir/file", 0);
    await settle();
    assert.deepEqual(fake.answers, [[0, 1], [0], [0], [0, 1], [0, 2]]);
    assert.equal(fake.operations.openFiles, 2);
  });

  it("answers the size of an xattr, its value, or ERANGE", () => {
    const fake = new FakeNative(fakeFileSystem());
    const sizes = [0, 5, 4].map((size) => Buffer.alloc(size));
    for (const space of sizes) fake.native._op_getxattr(fake.signal, "/dir", "user.a", space);
    fake.native._op_getxattr(fake.signal, "/dir", "user.none", Buffer.alloc(5));
    for (const size of [0, 15, 14])
      fake.native._op_listxattr(fake.signal, "/dir", Buffer.alloc(size));
    assert.deepEqual(
      fake.answers.map(([result]) => result),
      [5, 5, -34, -61, 15, 15, -34],
    );
    assert.equal(sizes[1]?.toString(), "value");
  });

  it("implements only what the file system has", () => {
    const full = fakeFileSystem();
    const bare: FuseFileSystem = {
      rootInode: 1,
      lookup: (parent, name) => full.lookup(parent, name),
      getattr: (inode) => full.getattr(inode),
      readdir: (inode) => full.readdir(inode),
      open: (inode) => full.open(inode),
    };
    assert.deepEqual(Object.keys(new FakeNative(bare).operations.implemented()), [
      "getattr",
      "readdir",
      "open",
      "read",
      "release",
    ]);
  });
});

describe("PathResolver", () => {
  it("walks a path once and remembers it", () => {
    const fileSystem = fakeFileSystem();
    const paths = new PathResolver(fileSystem);
    assert.equal(paths.resolve("/"), 1);
    assert.equal(paths.resolve("/dir/file"), 7);
    assert.equal(paths.resolve("/dir/file"), 7);
    assert.equal(fileSystem.lookups, 2);
    assert.equal(paths.resolve("/none/file"), ENOENT);
  });

  it("forgets the paths used longest ago", () => {
    const fileSystem = { ...fakeFileSystem(), lookup: () => 3 };
    const paths = new PathResolver(fileSystem);
    for (let index = 0; index < CACHED_PATHS_MAX + 100; index += 1) void paths.resolve(`/${index}`);
    assert.equal(paths.cachedPaths, CACHED_PATHS_MAX);
  });

  it("waits for file systems that answer later", async () => {
    const fileSystem = { ...fakeFileSystem(), lookup: () => Promise.resolve(3) };
    assert.equal(await new PathResolver(fileSystem).resolve("/a/b/c"), 3);
  });
});
