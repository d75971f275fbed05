import assert from "node:assert/strict";
import { open } from "node:fs/promises";
import fc from "fast-check";
import {
  ErofsInodeInput,
  FILE_TYPE,
  writeErofs,
  type ErofsData,
} from "../../../src/erofs/index.ts";
import { assertSameTree, describeTree } from "../../support/erofs/manifest.ts";
import { describeMount, requireMount, Scratch } from "../../support/erofs/mounted.ts";
import {
  deviceBytes,
  directory,
  file,
  special,
  symlink,
  treeArbitrary,
  xattrs,
} from "../../support/erofs/trees.ts";

const DEVICES = [deviceBytes(40, 1), deviceBytes(7, 2)];
const OPTIONS = { devices: DEVICES.map((device) => ({ bytes: device.length })) };

describe("erofs images mounted by the kernel", function () {
  this.timeout(120_000);

  before(async function () {
    await requireMount(this);
  });

  it("shows every attribute and byte of generated trees", async () => {
    const trees = treeArbitrary(
      DEVICES.map((device) => device.length),
      { maxLength: 150 },
    );
    for (const [index, root] of fc.sample(trees, { numRuns: 12, seed: 7 }).entries()) {
      await using scratch = await Scratch.create();
      const mounted = await scratch.mountErofs(writeErofs(root, OPTIONS), DEVICES);
      const found = describeMount(mounted);
      assert.deepEqual(found, describeTree(root, DEVICES), `tree ${index}`);
    }
  });

  it("shows the corners", async () => {
    const twice = file("hard", { uid: 4_000_000_000, gid: 4_294_967_294 });
    const acl = Buffer.from(
      "0200000001000700ffffffff02000500e803000004000500ffffffff10000700ffffffff20000500ffffffff",
      "hex",
    );
    const everything: Record<string, string> = { "trusted.overlay.opaque": "y" };
    for (let index = 0; index < 40; index += 1)
      everything[`user.x${index}`] = "v".repeat(index * 40);
    const root = directory({
      "\xff\xfe not utf-8 \n": file("a"),
      ["n".repeat(255)]: file("b"),
      "\x01 before dot": file("c"),
      "-dash": file("d"),
      twice,
      sub: directory({ again: twice }, { mode: 0o2755 }),
      before: file("", { mtimeSec: -1, mtimeNsec: 1 }),
      long: file("", { mtimeSec: -(2 ** 33), mtimeNsec: 999_999_999 }),
      far: file("", { mtimeSec: 2 ** 34, mtimeNsec: 123_456_789 }),
      chr: special(FILE_TYPE.characterDevice | 0o666, { rdevMajor: 1, rdevMinor: 3 }),
      blk: special(FILE_TYPE.blockDevice | 0o660, { rdevMajor: 4095, rdevMinor: 1_048_575 }),
      whiteout: special(FILE_TYPE.characterDevice),
      fifo: special(FILE_TYPE.fifo | 0o600),
      socket: special(FILE_TYPE.socket | 0o755),
      suid: file("x", { mode: 0o6755 }),
      closed: directory({ within: file("x") }, { mode: 0 }),
      link: symlink("../anywhere/\xff"),
      longest: symlink("l".repeat(4095)),
      acl: file("x", {
        mode: 0o675,
        xattrs: new Map([["system.posix_acl_access", acl]]),
      }),
      caps: file("x", {
        xattrs: new Map([
          ["security.capability", Buffer.from("0100000200040000000000000000000000000000", "hex")],
        ]),
      }),
      everything: directory({}, { xattrs: xattrs(everything) }),
      same1: file("", { xattrs: xattrs({ "user.s": "s".repeat(2000), "user.t": "t" }) }),
      same2: file("", { xattrs: xattrs({ "user.s": "s".repeat(2000), "user.u": "u" }) }),
    });
    await using scratch = await Scratch.create();
    const mounted = await scratch.mountErofs(writeErofs(root, { devices: [] }), []);
    assert.deepEqual(describeMount(mounted), describeTree(root, []));
  });

  it("reads past 4 GiB, through chunks and holes", async () => {
    const gib = 1024 ** 3;
    const device = deviceBytes(4, 3);
    const extents = [
      { fileOffset: 0, length: 512, device: 1, deviceOffset: 512 },
      { fileOffset: 5 * gib, length: 700, device: 1, deviceOffset: 1024 },
    ];
    const size = 5 * gib + 700;
    const sparse: ErofsData = {
      kind: "extents",
      size: 5 * gib + 700,
      extents: [{ fileOffset: 5 * gib, length: 700, device: 1, deviceOffset: 1024 }],
    };
    const hole: ErofsData = { kind: "extents", size: 3 * 1024 ** 4, extents: [] };
    const small: ErofsData = { kind: "extents", size: 1 << 20, extents: extents.slice(0, 1) };
    const root = directory({ sparse: file(sparse), hole: file(hole), small: file(small) });
    await using scratch = await Scratch.create();
    const image = writeErofs(root, { devices: [{ bytes: device.length }] });
    const mounted = await scratch.mountErofs(image, [device]);
    await using handle = await open(`${mounted}/sparse`);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2000), 0, 2000, size - 1000);
    assert.equal(bytesRead, 1000);
    assert.deepEqual(buffer.subarray(0, 300), Buffer.alloc(300));
    assert.deepEqual(buffer.subarray(300, 1000), device.subarray(1024, 1724));
    await using holes = await open(`${mounted}/hole`);
    const read = await holes.read(Buffer.alloc(10, 1), 0, 10, 3 * 1024 ** 4 - 5);
    assert.equal(read.bytesRead, 5);
    assert.deepEqual(read.buffer.subarray(0, 5), Buffer.alloc(5));
    await using first = await open(`${mounted}/small`);
    const start = await first.read(Buffer.alloc(1024, 1), 0, 1024, 0);
    assert.deepEqual(start.buffer.subarray(0, 512), device.subarray(512, 1024));
    assert.deepEqual(start.buffer.subarray(512), Buffer.alloc(512));
  });

  it("shows 20,000 names of one directory", async () => {
    const large = directory();
    for (let index = 0; index < 20_000; index += 1) {
      large.entries?.set(`${index}`.padEnd(1 + (index % 255), "é"), file(`${index}`));
    }
    const root = directory({ large });
    await using scratch = await Scratch.create();
    const mounted = await scratch.mountErofs(writeErofs(root, { devices: [] }), []);
    const found = describeMount(mounted);
    assert.equal(found.length, 20_002);
    assertSameTree(found, describeTree(root, []));
  });

  it("shows 200,000 files", async () => {
    const root = new ErofsInodeInput(directory().attributes);
    for (let index = 0; index < 200_000; index += 1) {
      const name = `d${Math.floor(index / 50)}`;
      const parent = root.entries?.get(name) ?? directory();
      root.entries?.set(name, parent);
      const data: ErofsData = {
        kind: "extents",
        size: 100,
        extents: [{ fileOffset: 0, length: 100, device: 1, deviceOffset: (index % 40) * 512 }],
      };
      parent.entries?.set(`file-${index}`, file(data, { mtimeSec: 1e9 + (index % 1000) }));
    }
    await using scratch = await Scratch.create();
    const mounted = await scratch.mountErofs(writeErofs(root, OPTIONS), DEVICES);
    const found = describeMount(mounted, { isShallow: true });
    assert.equal(found.length, 204_001);
    const expected = describeTree(root, []).map((entry) => ({ ...entry, content: "" }));
    assertSameTree(found, expected);
    const one = describeMount(`${mounted}/d3999`);
    assert.deepEqual(
      one.map((entry) => entry.content),
      describeTree(root.entries?.get("d3999") ?? root, DEVICES).map((entry) => entry.content),
    );
  });
});
