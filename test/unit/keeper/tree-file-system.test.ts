/** fuse mode's file system over a metadata image and made-up layers. */
import assert from "node:assert/strict";
import {
  defaultDirectory,
  ErofsInodeInput,
  ErofsReader,
  FILE_TYPE,
  symlinkData,
  writeErofs,
} from "../../../src/erofs/index.ts";
import { EINVAL, EIO, EISDIR, ENODATA, ENOENT, ENOTDIR, Errno } from "../../../src/fuse/index.ts";
import type { FuseAttributes, FuseFile } from "../../../src/fuse/index.ts";
import { TreeFileSystem } from "../../../src/keeper/tree-file-system.ts";
import type { TreeDevice } from "../../../src/keeper/tree-file-system.ts";

/** Each byte of device n is n. */
function device(number: number, bytes = 1 << 20): TreeDevice {
  return {
    read: (buffer, offset) => {
      const length = Math.max(Math.min(buffer.length, bytes - offset), 0);
      buffer.fill(number, 0, length);
      return Promise.resolve(length);
    },
  };
}

function tree(devices: readonly TreeDevice[] = [device(1), device(2)]): TreeFileSystem {
  const root = new ErofsInodeInput(defaultDirectory());
  const plain = {
    ...defaultDirectory(),
    mode: FILE_TYPE.regular | 0o640,
    uid: 70_000,
    mtimeSec: 5,
  };
  const extents = [
    { fileOffset: 0, length: 512, device: 2, deviceOffset: 1024 },
    { fileOffset: 1024, length: 76, device: 1, deviceOffset: 512 },
  ];
  const sparse = new ErofsInodeInput(
    { ...plain, xattrs: new Map([["user.k", Buffer.from("v")]]) },
    { data: { kind: "extents", size: 1100, extents } },
  );
  root.entries?.set("sparse", sparse);
  root.entries?.set("same", sparse);
  root.entries?.set("empty", new ErofsInodeInput(plain));
  const link = { ...defaultDirectory(), mode: FILE_TYPE.symlink | 0o777 };
  root.entries?.set("link", new ErofsInodeInput(link, { data: symlinkData("to/\xe9") }));
  const image = writeErofs(root, { devices: [{ bytes: 1 << 20 }, { bytes: 1 << 20 }] });
  return new TreeFileSystem(ErofsReader.open(image), devices);
}

async function inodeOf(fileSystem: TreeFileSystem, name: string): Promise<number> {
  const inode = await fileSystem.lookup(fileSystem.rootInode, name);
  assert.ok(typeof inode === "number", name);
  return inode;
}

async function opened(fileSystem: TreeFileSystem, name: string): Promise<FuseFile> {
  const file = await fileSystem.open(await inodeOf(fileSystem, name));
  assert.ok(!(file instanceof Errno));
  return file;
}

describe("TreeFileSystem", () => {
  it("gives both names of a hard link one inode", async () => {
    const fileSystem = tree();
    const inode = await inodeOf(fileSystem, "sparse");
    assert.equal(await inodeOf(fileSystem, "same"), inode);
    const { mode, nlink, uid, size, mtimeSec } = (await fileSystem.getattr(
      inode,
    )) as FuseAttributes;
    assert.deepEqual(
      { mode, nlink, uid, size, mtimeSec },
      { mode: 0o100640, nlink: 2, uid: 70_000, size: 1100, mtimeSec: 5 },
    );
  });

  it("reads extents of several layers and zeros between them", async () => {
    const file = await opened(tree(), "sparse");
    const buffer = Buffer.alloc(4096, 0xff);
    assert.equal(await file.read(buffer, 0), 1100);
    const expected = Buffer.concat([Buffer.alloc(512, 2), Buffer.alloc(512), Buffer.alloc(76, 1)]);
    assert.ok(buffer.subarray(0, 1100).equals(expected));
    const part = Buffer.alloc(600, 0xff);
    assert.equal(await file.read(part, 500), 600);
    assert.ok(part.equals(expected.subarray(500, 1100)));
    assert.equal(await file.read(part, 1100), 0);
  });

  it("fails a read whose layer is shorter than the metadata says, or is not there", async () => {
    const buffer = Buffer.alloc(1100);
    const short = await opened(tree([device(1), device(2, 1100)]), "sparse");
    assert.equal(await short.read(buffer, 0), EIO);
    const missing = await opened(tree([device(1)]), "sparse");
    assert.equal(await missing.read(buffer, 0), EIO);
  });

  it("lists names with their types", async () => {
    const fileSystem = tree();
    const entries = await fileSystem.readdir(fileSystem.rootInode);
    assert.ok(!(entries instanceof Errno));
    assert.deepEqual(
      entries.map((entry) => [entry.name, entry.mode & 0o170000]),
      [
        ["empty", 0o100000],
        ["link", 0o120000],
        ["same", 0o100000],
        ["sparse", 0o100000],
      ],
    );
  });

  it("answers link targets and xattrs byte for byte", async () => {
    const fileSystem = tree();
    const target = await fileSystem.readlink(await inodeOf(fileSystem, "link"));
    assert.deepEqual(target, Buffer.from("to/\xe9", "latin1"));
    const sparse = await inodeOf(fileSystem, "sparse");
    const value = await fileSystem.getxattr(sparse, "user.k");
    assert.ok(!(value instanceof Errno) && Buffer.from(value).equals(Buffer.from("v")));
    assert.equal(await fileSystem.getxattr(sparse, "user.none"), ENODATA);
    assert.deepEqual(await fileSystem.listxattr(sparse), ["user.k"]);
  });

  it("answers the errno that the kernel expects for the wrong kind of file", async () => {
    const fileSystem = tree();
    const [empty, link] = [await inodeOf(fileSystem, "empty"), await inodeOf(fileSystem, "link")];
    assert.equal(fileSystem.lookup(fileSystem.rootInode, "none"), ENOENT);
    assert.equal(fileSystem.lookup(empty, "x"), ENOTDIR);
    assert.equal(fileSystem.readdir(empty), ENOTDIR);
    assert.equal(fileSystem.readlink(empty), EINVAL);
    assert.equal(fileSystem.open(fileSystem.rootInode), EISDIR);
    assert.equal(fileSystem.open(link), EINVAL);
    const file = await opened(fileSystem, "empty");
    assert.equal(await file.read(Buffer.alloc(10), 0), 0);
  });
});
