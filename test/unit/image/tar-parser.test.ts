import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { extract } from "tar-stream";
import { DaemonError } from "../../../src/base/errors.ts";
import {
  base256,
  BLOCK,
  END,
  gnuLong,
  packTar,
  padded,
  paxHeader,
  rawHeader,
  rawMember,
  type PackedMember,
} from "../../support/layers/index.ts";
import { parseTar } from "./parse-tar.ts";

const TAR = (...parts: Buffer[]): Buffer => Buffer.concat([...parts, END]);

function rejects(tar: Buffer, message: RegExp, limits = {}): void {
  assert.throws(
    () => parseTar(tar, { limits }),
    (error) => error instanceof DaemonError && message.test(error.message),
  );
}

describe("TarParser", () => {
  it("reads ustar members of every type", async () => {
    const members: PackedMember[] = [
      { name: "dir/", type: "directory", mode: 0o1777, uid: 1, gid: 2 },
      { name: "dir/file", mode: 0o4755, data: "hello" },
      { name: "hard", type: "link", linkname: "dir/file" },
      { name: "sym", type: "symlink", linkname: "../x" },
      { name: "chr", type: "character-device", devmajor: 1, devminor: 3 },
      { name: "blk", type: "block-device", devmajor: 8, devminor: 1 },
      { name: "fifo", type: "fifo" },
      { name: "contiguous", type: "contiguous-file", data: "abc" },
    ];
    const entries = parseTar(await packTar(members));
    assert.deepEqual(
      entries.map((entry) => [entry.type, entry.path, entry.linkPath, entry.size]),
      [
        ["directory", "dir/", "", 0],
        ["file", "dir/file", "", 5],
        ["hard-link", "hard", "dir/file", 0],
        ["symlink", "sym", "../x", 0],
        ["char-device", "chr", "", 0],
        ["block-device", "blk", "", 0],
        ["fifo", "fifo", "", 0],
        ["file", "contiguous", "", 3],
      ],
    );
    assert.equal(entries[0]?.mode, 0o1777);
    assert.equal(entries[1]?.mode, 0o4755);
    assert.deepEqual([entries[4]?.rdevMajor, entries[4]?.rdevMinor], [1, 3]);
    assert.equal(entries[1].dataOffset, 1024);
    assert.equal(entries[1].mtimeSec, 1_000_000_000);
  });

  it("gives the same entries whatever the pieces", async () => {
    const tar = await packTar([
      { name: "a", data: "x".repeat(3000) },
      { name: `${"long/".repeat(40)}name`, data: "y" },
      { name: "ü", data: "z" },
    ]);
    const expected = parseTar(tar);
    for (const pieceBytes of [1, 7, 100, 511, 512, 513, 2000]) {
      assert.deepEqual(parseTar(tar, { pieceBytes }), expected);
    }
  });

  it("agrees with tar-stream on random archives", async () => {
    const name = fc
      .array(fc.constantFrom("a", "b", "ü", " ", "-", "long-component-of-a-path"), {
        minLength: 1,
        maxLength: 60,
      })
      .map((parts) => `p${parts.join("")}`);
    const member = fc.record({
      name,
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: fc.integer({ min: 0, max: 5_000_000 }),
      gid: fc.integer({ min: 0, max: 0o7777777 }),
      mtime: fc.integer({ min: 0, max: 2 ** 31 - 1 }).map((sec) => new Date(sec * 1000)),
      data: fc.string({ maxLength: 1500 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(member, { maxLength: 6 }), async (members) => {
        const tar = await packTar(members);
        const ours = parseTar(tar, { pieceBytes: 700 });
        const theirs = await readWithTarStream(tar);
        assert.deepEqual(
          ours.map((entry) => ({
            name: Buffer.from(entry.path, "latin1").toString("utf8"),
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtimeSec,
            data: tar.toString("utf8", entry.dataOffset, entry.dataOffset + entry.size),
          })),
          theirs,
        );
      }),
      { numRuns: 60 },
    );
  });

  it("joins the ustar and star prefix, not the GNU one", () => {
    const star = rawHeader({
      name: "n",
      prefix: "p",
      patch: [{ offset: 508, bytes: Buffer.from("tar\0") }],
    });
    const entries = parseTar(
      TAR(
        rawHeader({ name: "n", prefix: "some/prefix" }),
        star,
        rawHeader({ name: "n", magic: "gnu", patch: [{ offset: 345, bytes: octal("7", 12) }] }),
        rawHeader({ name: "n", magic: "gnu", prefix: "old/go/bug" }),
        rawHeader({ name: "v7", magic: "v7", prefix: "ignored" }),
      ),
    );
    assert.deepEqual(
      entries.map((entry) => entry.path),
      ["some/prefix/n", "p/n", "n", "old/go/bug/n", "v7"],
    );
  });

  it("takes a v7 name with a trailing slash for a directory, and only there", () => {
    const entries = parseTar(
      TAR(
        rawHeader({ name: "d/", typeflag: "\0", magic: "v7" }),
        rawHeader({ name: "f/", typeflag: "0" }),
      ),
    );
    assert.deepEqual(
      entries.map((entry) => entry.type),
      ["directory", "file"],
    );
  });

  it("reads base-256 and negative numbers", () => {
    const [entry] = parseTar(
      TAR(
        rawHeader({
          uid: base256(3_000_000_000n, 8),
          gid: base256(7n, 8),
          mtime: base256(-1n, 12),
        }),
      ),
    );
    assert.deepEqual([entry?.uid, entry?.gid, entry?.mtimeSec], [3_000_000_000, 7, -1]);
  });

  it("reads files over 8 GiB by their header alone", () => {
    const size = 2 ** 36;
    const parser = rawHeader({ size: base256(BigInt(size), 12) });
    rejects(parser, /archive ends inside the data/);
  });

  it("keeps names that are not UTF-8", () => {
    const [first, second] = parseTar(
      TAR(
        rawHeader({ name: "\xff\xfe" }),
        paxHeader([["path", "\x80\xe9/\xff"]]),
        rawHeader({ name: "x" }),
      ),
    );
    assert.equal(first?.path, "\xff\xfe");
    assert.equal(second?.path, "\x80\xe9/\xff");
  });

  it("applies a pax header to the next member only", () => {
    const mtime = "-1.25";
    const entries = parseTar(
      TAR(
        paxHeader([
          ["path", "long"],
          ["linkpath", "target"],
          ["uid", "4000000000"],
          ["gid", "12"],
          ["mtime", mtime],
          ["comment", "ignored"],
          ["uname", ""],
        ]),
        rawHeader({ name: "short", typeflag: "2" }),
        rawHeader({ name: "next", mtime: 5 }),
      ),
    );
    const [first, second] = entries;
    assert.deepEqual(
      [first?.path, first?.linkPath, first?.uid, first?.gid, first?.mtimeSec, first?.mtimeNsec],
      ["long", "target", 4_000_000_000, 12, -2, 750_000_000],
    );
    assert.deepEqual([second?.path, second?.uid, second?.mtimeSec], ["next", 0, 5]);
  });

  it("reads pax times of every form", () => {
    const cases: readonly (readonly [string, number, number])[] = [
      ["1", 1, 0],
      ["1.", 1, 0],
      ["1.5", 1, 500_000_000],
      ["1.123456789999", 1, 123_456_789],
      ["-0.000000001", -1, 999_999_999],
      ["-3", -3, 0],
      ["+4.25", 4, 250_000_000],
    ];
    for (const [text, sec, nsec] of cases) {
      const [entry] = parseTar(TAR(paxHeader([["mtime", text]]), rawHeader({})));
      assert.deepEqual([entry?.mtimeSec, entry?.mtimeNsec], [sec, nsec], text);
    }
    for (const text of ["", "x", "1.2x", "1e3", ".5", "--1", "9".repeat(30)]) {
      if (text === "") continue;
      rejects(TAR(paxHeader([["mtime", text]]), rawHeader({})), /pax mtime is not a time/);
    }
  });

  it("takes the data length from the pax size", () => {
    const data = Buffer.from("0123456789");
    const [first, second] = parseTar(
      TAR(
        paxHeader([["size", "10"]]),
        rawHeader({ name: "a", size: 0 }),
        padded(data),
        rawHeader({ name: "b" }),
      ),
    );
    assert.deepEqual([first?.size, second?.path], [10, "b"]);
  });

  it("does not apply a pending pax size to an extension header", () => {
    // The differential behind several CVEs: size=1024 must not swallow the L header's real end.
    const [entry, next] = parseTar(
      TAR(
        paxHeader([["size", "3"]]),
        gnuLong("L", "a-long-name"),
        rawMember({ name: "short", size: 600 }, Buffer.from("abc")),
        rawHeader({ name: "next" }),
      ),
    );
    assert.deepEqual([entry?.path, entry?.size, next?.path], ["a-long-name", 3, "next"]);
  });

  it("lets a second pax header replace the first", () => {
    const [entry] = parseTar(
      TAR(paxHeader([["uid", "7"]]), paxHeader([["gid", "8"]]), rawHeader({})),
    );
    assert.deepEqual([entry?.uid, entry?.gid], [0, 8]);
  });

  it("checks global headers, ignores them and lets them end what was pending", () => {
    const entries = parseTar(
      TAR(
        paxHeader([["path", "evil"]], "g"),
        rawHeader({ name: "a" }),
        paxHeader([["path", "lost"]]),
        paxHeader([["comment", "c"]], "g"),
        rawHeader({ name: "b" }),
      ),
    );
    assert.deepEqual(
      entries.map((entry) => entry.path),
      ["a", "b"],
    );
    rejects(TAR(rawMember({ typeflag: "g" }, Buffer.from("9 nonsense"))), /malformed pax record/);
  });

  it("reads GNU long names and links, which win over pax", () => {
    const name = "n".repeat(300);
    const link = "l".repeat(300);
    const [entry] = parseTar(
      TAR(
        paxHeader([["path", "pax"]]),
        gnuLong("L", name),
        gnuLong("K", link),
        rawHeader({ name: "n", typeflag: "2", linkname: "l", magic: "gnu" }),
      ),
    );
    assert.deepEqual([entry?.path, entry?.linkPath], [name, link]);
  });

  it("reads binary xattrs", () => {
    const value = "\x00\x01=\n\xff\x02";
    const [entry] = parseTar(
      TAR(
        paxHeader([
          ["SCHILY.xattr.security.capability", value],
          ["SCHILY.xattr.user.\xfe", ""],
          ["LIBARCHIVE.xattr.user.a", "YQ=="],
        ]),
        rawHeader({}),
      ),
    );
    assert.deepEqual(
      [...(entry?.xattrs ?? [])].map(([key, bytes]) => [
        key,
        Buffer.from(bytes).toString("latin1"),
      ]),
      [
        ["security.capability", value],
        ["user.\xfe", ""],
      ],
    );
  });

  it("ends at two zero blocks, whatever follows", () => {
    const entries = parseTar(Buffer.concat([rawHeader({}), END, randomBytes(5000)]));
    assert.equal(entries.length, 1);
    assert.equal(parseTar(rawHeader({})).length, 1);
    assert.equal(parseTar(Buffer.concat([rawHeader({}), Buffer.alloc(BLOCK)])).length, 1);
    assert.equal(parseTar(Buffer.alloc(0)).length, 0);
  });

  it("accepts a last member without padding, not one without data", () => {
    const whole = rawMember({ name: "a" }, Buffer.from("abc"));
    assert.equal(parseTar(whole.subarray(0, BLOCK + 3))[0]?.size, 3);
    rejects(whole.subarray(0, BLOCK + 2), /tar entry "a".*ends inside the data/);
    rejects(whole.subarray(0, 100), /ends inside a header/);
  });

  it("ignores the size of members without data", () => {
    const entries = parseTar(
      TAR(rawHeader({ name: "d", typeflag: "5", size: 4096 }), rawHeader({ name: "next" })),
    );
    assert.deepEqual(
      entries.map((entry) => [entry.path, entry.size]),
      [
        ["d", 0],
        ["next", 0],
      ],
    );
  });

  it("accepts the signed checksum of old Sun tars", () => {
    const fields = { name: "\xff\xff" };
    const unsigned = Number.parseInt(rawHeader(fields).toString("latin1", 148, 154), 8);
    const signed = rawHeader({ ...fields, checksum: unsigned - 512 });
    assert.equal(parseTar(TAR(signed)).length, 1);
  });

  it("refuses malformed headers, naming place and rule", () => {
    rejects(TAR(rawHeader({ checksum: 1 })), /tar header at offset 0: wrong header checksum/);
    rejects(TAR(rawHeader({ mode: octal("9", 8) })), /field mode is not a number/);
    rejects(TAR(rawHeader({ size: base256(-5n, 12) })), /negative size/);
    rejects(
      TAR(rawHeader({ size: base256(2n ** 60n, 12) })),
      /field size is not a number in range/,
    );
    rejects(TAR(rawHeader({ typeflag: "V" })), /unknown entry type 0x56/);
    rejects(
      Buffer.concat([rawHeader({}), Buffer.alloc(BLOCK), rawHeader({ name: "b" })]),
      /zero block and then a header/,
    );
  });

  it("refuses malformed pax records", () => {
    const cases = ["x a=b\n", "99 a=b\n", "6 a=bc", "7 abcd\n", "7 =bcd\n", "6  a=b"];
    for (const text of cases) {
      rejects(
        TAR(rawMember({ typeflag: "x" }, Buffer.from(text)), rawHeader({})),
        /malformed pax record/,
      );
    }
    rejects(TAR(paxHeader([["path", "a\0b"]]), rawHeader({})), /malformed pax record/);
    rejects(TAR(paxHeader([["uid", "1x"]]), rawHeader({})), /pax uid is not a number/);
  });

  it("keeps its limits", () => {
    const many = Array.from({ length: 4 }, () => rawHeader({}));
    rejects(TAR(...many), /more than 3 entries/, { entriesMax: 3 });
    rejects(TAR(...many), /more than 15 bytes of metadata/, { metadataBytesMax: 15 });
    rejects(TAR(rawHeader({ name: "big", size: 9000 })), /"big" .* more than 8192 bytes of tar/, {
      tarBytesMax: 8192,
    });
    rejects(TAR(rawHeader({ typeflag: "x", size: 2 ** 21 })), /extension header of 2097152 bytes/);
    rejects(
      TAR(paxHeader([[`SCHILY.xattr.user.${"n".repeat(256)}`, "v"]]), rawHeader({})),
      /xattr name of 261 bytes/,
    );
    rejects(
      TAR(paxHeader([["SCHILY.xattr.user.n", "v".repeat(65_536)]]), rawHeader({})),
      /xattr value of 65536 bytes/,
    );
    const names = Array.from(
      { length: 300 },
      (_, index) => [`SCHILY.xattr.user.${String(index).padStart(240, "n")}`, ""] as const,
    );
    rejects(TAR(paxHeader(names), rawHeader({})), /xattr names of more than 65536 bytes/);
  });

  it("never throws anything but DaemonError on mutated archives", async () => {
    const tar = await packTar([
      { name: `${"d/".repeat(80)}x`, data: "abc" },
      { name: "b", type: "symlink", linkname: "x".repeat(150) },
    ]);
    const sparse = TAR(
      paxHeader([
        ["GNU.sparse.major", "1"],
        ["GNU.sparse.minor", "0"],
        ["GNU.sparse.realsize", "4096"],
      ]),
      rawMember({}, Buffer.concat([padded(Buffer.from("1\n512\n512\n")), Buffer.alloc(512)])),
    );
    const mutation = fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }));
    fc.assert(
      fc.property(
        fc.boolean(),
        fc.array(mutation, { minLength: 1, maxLength: 8 }),
        fc.boolean(),
        (isSparse, mutations, isCut) => {
          const bytes = Buffer.from(isSparse ? sparse : tar);
          for (const [at, value] of mutations) bytes[at % bytes.length] = value;
          if (!isSparse) fixChecksums(bytes);
          const end = isCut ? (mutations[0]?.[0] ?? 0) % bytes.length : bytes.length;
          try {
            parseTar(bytes.subarray(0, end), { pieceBytes: 333 });
          } catch (error) {
            assert.ok(error instanceof DaemonError, String(error));
          }
        },
      ),
      { numRuns: 400 },
    );
  });
});

function octal(text: string, width: number): Buffer {
  return Buffer.from(text.padStart(width, "0"), "latin1");
}

/** So that mutations reach what lies behind the checksum. */
function fixChecksums(bytes: Buffer): void {
  for (let start = 0; start + BLOCK <= bytes.length; start += BLOCK) {
    const block = bytes.subarray(start, start + BLOCK);
    if (block.toString("latin1", 257, 262) !== "ustar") continue;
    block.fill(0x20, 148, 156);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  }
}

async function readWithTarStream(tar: Buffer): Promise<unknown[]> {
  const archive = extract();
  archive.end(tar);
  const entries: unknown[] = [];
  for await (const entry of archive) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry as AsyncIterable<Buffer>) chunks.push(chunk);
    const { name, mode, uid, gid, mtime } = entry.header;
    const data = Buffer.concat(chunks).toString("utf8");
    entries.push({ name, mode, uid, gid, mtime: mtime.getTime() / 1000, data });
  }
  return entries;
}
