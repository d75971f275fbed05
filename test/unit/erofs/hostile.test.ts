import assert from "node:assert/strict";
import fc from "fast-check";
import { DaemonError } from "../../../src/base/errors.ts";
import { ErofsReader, writeErofs } from "../../../src/erofs/index.ts";
import { fixChecksum } from "../../support/erofs/checksum.ts";
import { readAll, type Attempt } from "../../support/erofs/read-all.ts";
import { deviceBytes, directory, file, symlink, treeArbitrary } from "../../support/erofs/trees.ts";

const SIZES = [deviceBytes(40, 1).length, deviceBytes(7, 2).length];
const OPTIONS = { devices: SIZES.map((bytes) => ({ bytes })) };

/** How many reads were refused; only `data-loss` may be thrown. */
function refusals(image: Buffer): number {
  let count = 0;
  const attempt: Attempt = (read) => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof DaemonError && error.code === "data-loss")) throw error;
      count += 1;
      return undefined;
    }
  };
  const reader = attempt(() => ErofsReader.open(image));
  if (reader !== undefined) readAll(reader, attempt);
  return count;
}

describe("erofs reader on hostile images", () => {
  const mutation = fc.record({
    at: fc.nat(),
    kind: fc.constantFrom("byte", "ones", "zeros", "cut"),
    value: fc.integer({ min: 0, max: 255 }),
  });

  it("ends and throws nothing but data-loss on mutated images", () => {
    const trees = treeArbitrary(SIZES, { maxLength: 25 });
    fc.assert(
      fc.property(trees, fc.array(mutation, { minLength: 1, maxLength: 12 }), (root, changes) => {
        let image = writeErofs(root, OPTIONS);
        for (const { at, kind, value } of changes) {
          const place = 1024 + (at % (image.length - 1024));
          if (kind === "byte") image.writeUInt8(value, place);
          else if (kind === "cut") image = image.subarray(0, Math.max(1025, place));
          else {
            const end = Math.min(image.length, place + (value % 16));
            image.fill(kind === "ones" ? 0xff : 0, place, end);
          }
        }
        refusals(fixChecksum(Buffer.from(image)));
      }),
      { numRuns: 400 },
    );
  });

  it("ends and throws nothing but data-loss on bytes that are no image", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), (bytes) => {
        assert.ok(refusals(Buffer.from(bytes)) > 0);
      }),
      { numRuns: 100 },
    );
  });

  it("changes each byte of a small image in turn", () => {
    const root = directory({ a: file("content"), b: symlink("a"), c: directory({ d: file("") }) });
    const image = writeErofs(root, OPTIONS);
    for (let at = 1024; at < image.length; at += 1) {
      for (const value of [0, 1, 0x7f, 0xff]) {
        const changed = Buffer.from(image);
        changed.writeUInt8(value, at);
        refusals(fixChecksum(changed));
      }
    }
  });

  it("refuses an image whose checksum is wrong", () => {
    const image = writeErofs(directory(), OPTIONS);
    image.writeUInt8(image.readUInt8(1100) ^ 1, 1100);
    assert.throws(() => ErofsReader.open(image), /wrong checksum/);
  });

  it("believes a directory's size only where the image has room for it", () => {
    const root = directory();
    for (let index = 0; index < 100; index += 1) root.entries?.set(`name ${index}`, file(""));
    const image = writeErofs(root, { devices: [] });
    const reader = ErofsReader.open(image);
    const at = reader.rootNid * 32;
    // The root's size, in a compact or an extended inode.
    image.writeUInt32LE(0x7fffffff, at + 8);
    assert.throws(() => reader.readDir(reader.rootNid), /larger than the image/);
  });

  it("refuses data beyond the end of its device", () => {
    const extents = [{ fileOffset: 0, length: 512, device: 1, deviceOffset: 512 * 39 }];
    const root = directory({ a: file({ kind: "extents", size: 512, extents }) });
    const image = writeErofs(root, OPTIONS);
    image.writeUInt32LE(39, 1024 + 128 + 64);
    const reader = ErofsReader.open(fixChecksum(image));
    const nid = reader.lookup(reader.rootNid, "a") ?? 0;
    assert.throws(() => reader.data(nid), /device 1, which ends before/);
  });
});
