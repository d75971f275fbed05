import assert from "node:assert/strict";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32c } from "../../../src/erofs/crc32c.ts";
import { ErofsFileReader, PagedFile, piecesOf, writeErofs } from "../../../src/erofs/index.ts";
import { deviceBytes, directory, file, symlink, xattrs } from "../../support/erofs/trees.ts";

const signal = new AbortController().signal;

async function withFile<T>(
  bytes: Uint8Array,
  use: (handle: Awaited<ReturnType<typeof open>>) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "faasnet-erofs-"));
  try {
    const path = join(folder, "file");
    await writeFile(path, bytes);
    await using handle = await open(path);
    return await use(handle);
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe("PagedFile", () => {
  it("reads any range, also across pages and again", async () => {
    const bytes = deviceBytes(3000, 1).subarray(0, 1_500_001);
    await withFile(bytes, async (handle) => {
      const paged = new PagedFile(handle, bytes.length);
      for (const [offset, length] of [
        [0, 0],
        [0, 64],
        [4090, 12],
        [4096, 4096],
        [1_499_990, 11],
        [0, 1_500_001],
        [bytes.length, 0],
      ] as const) {
        for (let again = 0; again < 2; again += 1) {
          const found = await paged.read({ offset, length });
          assert.ok(found.equals(bytes.subarray(offset, offset + length)), `${offset}+${length}`);
        }
      }
    });
  });

  it("forgets pages and reads them again", async () => {
    const bytes = deviceBytes(5000, 2);
    await withFile(bytes, async (handle) => {
      const paged = new PagedFile(handle, bytes.length);
      for (let round = 0; round < 2; round += 1) {
        for (let offset = 0; offset + 100 <= bytes.length; offset += 4000) {
          const found = await paged.read({ offset, length: 100 });
          assert.ok(found.equals(bytes.subarray(offset, offset + 100)));
        }
      }
    });
  });
});

describe("ErofsFileReader", () => {
  it("reads an image from a file", async () => {
    const root = directory({
      a: file("content", { xattrs: xattrs({ "user.a": "b" }) }),
      link: symlink("target"),
    });
    await withFile(writeErofs(root, { devices: [] }), async (handle) => {
      const reader = await ErofsFileReader.openFile(handle, { signal });
      const nid = (await reader.lookup(reader.rootNid, "link", { signal })) ?? 0;
      assert.equal(await reader.readlink(nid, { signal }), "target");
      const inode = await reader.inode(nid, { signal });
      await assert.rejects(reader.readDir(inode, { signal }), { code: "data-loss" });
      assert.equal((await reader.readDir(reader.rootNid, { signal })).length, 2);
    });
  });

  it("says data-loss where the file has been cut since", async () => {
    const image = writeErofs(directory({ a: file("x") }), { devices: [] });
    await withFile(image.subarray(0, 1200), async (handle) => {
      const paged = new PagedFile(handle, image.length);
      await assert.rejects(ErofsFileReader.open(paged, { signal }), { code: "data-loss" });
    });
  });

  it("stops when its caller does", async () => {
    const image = writeErofs(directory(), { devices: [] });
    await withFile(image, async (handle) => {
      const aborted = AbortSignal.abort();
      const opening = ErofsFileReader.openFile(handle, { signal: aborted });
      await assert.rejects(opening, { code: "canceled" });
    });
  });
});

describe("piecesOf", () => {
  const extents = [
    { fileOffset: 1024, length: 1024, device: 1, deviceOffset: 512 },
    { fileOffset: 4096, length: 512, device: 2, deviceOffset: 0 },
  ];
  const data = { kind: "extents", size: 6000, extents } as const;

  it("fills holes with zeros and ends at the end of the file", () => {
    assert.deepEqual(piecesOf(data, { start: 1000, end: 9000 }), [
      { kind: "zeros", length: 24 },
      { kind: "device", device: 1, deviceOffset: 512, length: 1024 },
      { kind: "zeros", length: 2048 },
      { kind: "device", device: 2, deviceOffset: 0, length: 512 },
      { kind: "zeros", length: 1392 },
    ]);
  });

  it("cuts pieces at the ends of the range", () => {
    assert.deepEqual(piecesOf(data, { start: 1100, end: 1200 }), [
      { kind: "device", device: 1, deviceOffset: 588, length: 100 },
    ]);
    assert.deepEqual(piecesOf(data, { start: 2048, end: 2050 }), [{ kind: "zeros", length: 2 }]);
    assert.deepEqual(piecesOf(data, { start: 6000, end: 7000 }), []);
    assert.deepEqual(piecesOf(data, { start: 7000, end: 8000 }), []);
  });

  it("takes inline bytes", () => {
    const inline = { kind: "inline", bytes: Buffer.from("hello") } as const;
    const pieces = piecesOf(inline, { start: 3, end: 10 });
    assert.deepEqual(pieces, [{ kind: "bytes", bytes: Buffer.from("lo") }]);
    assert.deepEqual(piecesOf(inline, { start: 9, end: 10 }), []);
    assert.deepEqual(piecesOf({ kind: "none" }, { start: 0, end: 10 }), []);
  });
});

describe("crc32c", () => {
  it("agrees with the published check value", () => {
    // RFC 3720 B.4 and others: 0xe3069283 with the final inversion.
    assert.equal(~crc32c(0xffffffff, Buffer.from("123456789")) >>> 0, 0xe3069283);
  });
});
