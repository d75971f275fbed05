import assert from "node:assert/strict";
import { DaemonError } from "../../../src/base/errors.ts";
import {
  base256,
  END,
  padded,
  paxHeader,
  rawHeader,
  rawMember,
} from "../../support/layers/index.ts";
import { buildTree, lookup, parseTar } from "./parse-tar.ts";

const TAR = (...parts: Buffer[]): Buffer => Buffer.concat([...parts, END]);
const DATA = Buffer.alloc(1024, 0x61);
const SEGMENTS = [
  { fileOffset: 512, length: 512 },
  { fileOffset: 4096, length: 512 },
];

function rejects(tar: Buffer, message: RegExp): void {
  assert.throws(
    () => buildTree(tar),
    (error) => error instanceof DaemonError && message.test(error.message),
  );
}

/** Pairs of the old form as 12-byte octal fields. */
function pairs(segments: readonly (readonly [number, number])[]): Buffer {
  const text = segments.flat().map((value) => `${value.toString(8).padStart(11, "0")}\0`);
  return Buffer.from(text.join(""), "latin1");
}

function oldSparse(
  segments: readonly (readonly [number, number])[],
  size: number,
  isExtended = false,
): Buffer {
  return rawHeader({
    name: "sparse",
    typeflag: "S",
    magic: "gnu",
    size: DATA.length,
    patch: [
      { offset: 386, bytes: pairs(segments) },
      { offset: 482, bytes: Buffer.of(isExtended ? 1 : 0) },
      { offset: 483, bytes: base256(BigInt(size), 12) },
    ],
  });
}

const PAX_1_0 = [
  ["GNU.sparse.major", "1"],
  ["GNU.sparse.minor", "0"],
  ["GNU.sparse.name", "sparse"],
  ["GNU.sparse.realsize", "8192"],
] as const;

describe("sparse members", () => {
  it("are read in the pax 0.0 form", () => {
    const tar = TAR(
      paxHeader([
        ["GNU.sparse.size", "8192"],
        ["GNU.sparse.numblocks", "2"],
        ["GNU.sparse.offset", "512"],
        ["GNU.sparse.numbytes", "512"],
        ["GNU.sparse.offset", "4096"],
        ["GNU.sparse.numbytes", "512"],
      ]),
      rawMember({}, DATA),
    );
    const [entry] = parseTar(tar);
    assert.deepEqual([entry?.size, entry?.sparse], [8192, SEGMENTS]);
  });

  it("are read in the pax 0.1 form", () => {
    const tar = TAR(
      paxHeader([
        ["GNU.sparse.major", "0"],
        ["GNU.sparse.minor", "1"],
        ["GNU.sparse.name", "sparse"],
        ["GNU.sparse.size", "8192"],
        ["GNU.sparse.numblocks", "2"],
        ["GNU.sparse.map", "512,512,4096,512"],
      ]),
      rawMember({ name: "GNUSparseFile.0/sparse" }, DATA),
    );
    const [entry] = parseTar(tar);
    assert.deepEqual([entry?.path, entry?.size, entry?.sparse], ["sparse", 8192, SEGMENTS]);
  });

  it("are read in the pax 1.0 form, whose map lies before the data", () => {
    const map = padded(Buffer.from("3\n512\n512\n4096\n512\n8192\n0\n"));
    const tar = TAR(paxHeader(PAX_1_0), rawMember({}, Buffer.concat([map, DATA])), rawHeader({}));
    for (const pieceBytes of [1, 300, 5000]) {
      const [entry, next] = parseTar(tar, { pieceBytes });
      assert.deepEqual([entry?.path, entry?.size, entry?.sparse], ["sparse", 8192, SEGMENTS]);
      const headers = 1024 + 512;
      assert.equal(entry?.dataOffset, headers + map.length);
      assert.equal(next?.path, "file");
    }
  });

  it("are read in the old form, with extension blocks", () => {
    const many = Array.from({ length: 30 }, (_, index) => [index * 2048, 512] as const);
    const header = rawHeader({
      name: "sparse",
      typeflag: "S",
      magic: "gnu",
      size: 30 * 512,
      patch: [
        { offset: 386, bytes: pairs(many.slice(0, 4)) },
        { offset: 482, bytes: Buffer.of(1) },
        { offset: 483, bytes: base256(61_440n, 12) },
      ],
    });
    const extension = (from: number, to: number, more: number): Buffer => {
      const block = Buffer.alloc(512);
      pairs(many.slice(from, to)).copy(block);
      block[504] = more;
      return block;
    };
    const tar = TAR(
      header,
      extension(4, 25, 1),
      extension(25, 30, 0),
      Buffer.alloc(30 * 512),
      rawHeader({ name: "next" }),
    );
    const [entry, next] = parseTar(tar, { pieceBytes: 700 });
    assert.equal(entry?.size, 61_440);
    assert.equal(entry.sparse?.length, 30);
    assert.equal(entry.dataOffset, 3 * 512);
    assert.equal(next?.path, "next");
  });

  it("become extents of the data device", () => {
    const tar = TAR(
      oldSparse([...SEGMENTS.map((s) => [s.fileOffset, s.length] as const)], 8192),
      DATA,
    );
    const data = lookup(buildTree(tar), "sparse")?.data;
    assert.deepEqual(data, {
      kind: "extents",
      size: 8192,
      extents: [
        { fileOffset: 512, length: 512, device: 1, deviceOffset: 512 },
        { fileOffset: 4096, length: 512, device: 1, deviceOffset: 1024 },
      ],
    });
  });

  it("may be all hole, or end in a piece of any length", () => {
    const hole = TAR(paxHeader(PAX_1_0), rawMember({}, padded(Buffer.from("1\n8192\n0\n"))));
    assert.deepEqual(lookup(buildTree(hole), "sparse")?.data, {
      kind: "extents",
      size: 8192,
      extents: [],
    });
    const odd = TAR(
      paxHeader([...PAX_1_0.slice(0, 3), ["GNU.sparse.realsize", "1000"]]),
      rawMember({}, Buffer.concat([padded(Buffer.from("1\n512\n488\n")), Buffer.alloc(488)])),
    );
    const data = lookup(buildTree(odd), "sparse")?.data;
    assert.ok(data?.kind === "extents" && data.extents[0]?.length === 488);
  });

  it("are refused where EROFS cannot address them", () => {
    rejects(TAR(oldSparse([[100, 1024]], 8192), DATA), /sparse segment at 100 is not 512-aligned/);
    const parts = [
      [0, 100],
      [512, 924],
    ] as const;
    rejects(TAR(oldSparse(parts, 8192), DATA), /sparse segment of 100 bytes is not 512-aligned/);
  });

  it("are refused with a map that does not fit", () => {
    const map = (text: string): Buffer =>
      TAR(paxHeader(PAX_1_0), rawMember({}, Buffer.concat([padded(Buffer.from(text)), DATA])));
    rejects(TAR(oldSparse([[0, 512]], 8192), DATA), /sparse map of 512 bytes over 1024 stored/);
    rejects(TAR(oldSparse([[7680, 1024]], 8192), DATA), /beyond the file/);
    rejects(map("2\n4096\n512\n512\n512\n"), /out of order/);
    rejects(map("2\n0\n1024\n512\n512\n"), /out of order/);
    rejects(map("99999999\n"), /too large length/);
    rejects(map("-1\n"), /too large length/);
    rejects(map("x\n"), /too large length/);
    rejects(map(`${"1".repeat(30)}\n`), /malformed sparse map/);
    rejects(map("1000\n1\n"), /longer than the data|malformed/);
    rejects(
      TAR(
        paxHeader([
          ["GNU.sparse.map", "0,1,2"],
          ["GNU.sparse.numblocks", "2"],
        ]),
        rawMember({}, DATA),
      ),
      /sparse map and its length differ/,
    );
    rejects(TAR(paxHeader([["GNU.sparse.numbytes", "1"]]), rawMember({}, DATA)), /out of order/);
    rejects(
      TAR(paxHeader(PAX_1_0), rawHeader({ typeflag: "5", name: "d" })),
      /member without data/,
    );
    rejects(TAR(rawHeader({ typeflag: "S" })), /format other than GNU/);
  });
});
