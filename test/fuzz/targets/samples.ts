/** Valid tars, gzip members and zstd frames that mutation begins from. */
import {
  base256,
  END,
  gnuLong,
  gzipMember,
  paxHeader,
  rawHeader,
  rawMember,
  sampleBytes,
} from "../../support/layers/index.ts";

export const TAR_BLOCK = 512;

function filesTar(): Buffer {
  return Buffer.concat([
    rawMember({ name: "etc/", typeflag: "5", mode: 0o755 }),
    rawMember({ name: "etc/passwd" }, Buffer.from("root:x:0:0\n")),
    rawMember({ name: "etc/copy", typeflag: "1", linkname: "etc/passwd" }),
    rawMember({ name: "etc/link", typeflag: "2", linkname: "../etc/passwd" }),
    rawMember({ name: "etc/.wh.gone" }),
    rawMember({ name: "var/.wh..wh..opq" }),
    rawMember({ name: "null", typeflag: "3", devmajor: 1, devminor: 3 }),
    rawMember({ name: "pipe", typeflag: "6" }),
    rawMember({ name: "deep", prefix: "a/b/c" }, sampleBytes(700)),
    END,
  ]);
}

function extendedTar(): Buffer {
  const records: [string, string][] = [
    ["path", `usr/${"long/".repeat(30)}name`],
    ["mtime", "1700000000.123456789"],
    ["uid", "4000000"],
    ["SCHILY.xattr.user.note", "value"],
    ["LIBARCHIVE.xattr.user.other", "dmFsdWU="],
  ];
  const sparse: [string, string][] = [
    ["GNU.sparse.major", "0"],
    ["GNU.sparse.minor", "1"],
    ["GNU.sparse.name", "holes"],
    ["GNU.sparse.size", "8192"],
    ["GNU.sparse.numblocks", "2"],
    ["GNU.sparse.map", "0,512,4096,512"],
  ];
  return Buffer.concat([
    paxHeader([["comment", "global"]], "g"),
    paxHeader(records),
    rawMember({ name: "short" }, Buffer.from("data")),
    paxHeader(sparse),
    rawMember({ name: "sparse" }, sampleBytes(1024)),
    gnuLong("L", `opt/${"x".repeat(200)}`),
    gnuLong("K", `target/${"y".repeat(200)}`),
    rawMember({ name: "gnu", typeflag: "2", magic: "gnu" }),
    rawMember({ name: "large-uid", uid: base256(3_000_000_000n, 8), magic: "gnu" }),
    END,
  ]);
}

function sparseTar(): Buffer {
  const map = Buffer.concat([Buffer.from("2\n0\n512\n4096\n512\n"), Buffer.alloc(TAR_BLOCK)]);
  const records: [string, string][] = [
    ["GNU.sparse.major", "1"],
    ["GNU.sparse.minor", "0"],
    ["GNU.sparse.name", "new"],
    ["GNU.sparse.realsize", "8192"],
  ];
  const octal = (value: number): string => `${value.toString(8).padStart(11, "0")}\0`;
  const old = rawHeader({
    name: "old",
    typeflag: "S",
    magic: "gnu",
    size: 1024,
    patch: [
      { offset: 386, bytes: Buffer.from(octal(0) + octal(512) + octal(2048) + octal(512)) },
      { offset: 483, bytes: Buffer.from(octal(4096)) },
    ],
  });
  return Buffer.concat([
    paxHeader(records),
    rawMember({ name: "new" }, Buffer.concat([map.subarray(0, TAR_BLOCK), sampleBytes(1024)])),
    old,
    sampleBytes(1024),
    END,
  ]);
}

export function tarSamples(): readonly Buffer[] {
  return [filesTar(), extendedTar(), sparseTar()];
}

/** Sets the checksum of every header where the tar's own sizes put one. */
export function repairTar(bytes: Buffer): Buffer {
  let at = 0;
  while (at + TAR_BLOCK <= bytes.length) {
    const block = bytes.subarray(at, at + TAR_BLOCK);
    at += TAR_BLOCK;
    if (block.every((byte) => byte === 0)) continue;
    block.fill(0x20, 148, 156);
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
    const size = Number.parseInt(block.toString("latin1", 124, 136), 8);
    const isData = /[0\0xgLK7S]/.test(String.fromCharCode(block[156] ?? 0));
    if (isData && size > 0 && size < bytes.length) at += Math.ceil(size / TAR_BLOCK) * TAR_BLOCK;
  }
  return bytes;
}

export function gzipSamples(): readonly Buffer[] {
  const [files = Buffer.alloc(0), extended = Buffer.alloc(0)] = tarSamples();
  return [
    gzipMember(files),
    gzipMember(extended, { level: 1, memLevel: 1, name: "layer.tar", headerCrc: true }),
    gzipMember(files, { level: 0, extra: Buffer.from("ab\x02\0xx", "latin1"), comment: "no" }),
    Buffer.concat([
      gzipMember(files.subarray(0, 1000), { strategy: 4 }),
      gzipMember(files.subarray(1000)),
    ]),
  ];
}

/** `zstd -19 --check` of 60 like lines, content size and checksum in the frame. */
const ZSTD_CHECKED =
  "KLUv/WTDFFUFACKHFxdw2QFQ+kPpD6WP/39b2LsiItLTq76fJoD7CN9786rzCN9786rrCN9786rjCN9786rbCN9786rTCN978wKa" +
  "QQYdGSBQkdomNDkZF5RU5FhLZtCRDwZNQzKEYklpJFU/qDHc1lj2M+ClDhEwBD9CcEL4//kBmJkyM8lJnJlJZs5IlClT5sxIKDNT" +
  "zpSRKDNTmZkqEkSIKELE9d23/RYWbmCF0qoLQFYBS37mrA==";
/** `zstd -3` of the same from a pipe: no content size, no checksum. */
const ZSTD_STREAMED =
  "KLUv/QBYhQcAQgcYG3CLOmCABkYo0v9JOl/R/7MJECtlCqnp//SrAYmyICIiIiLe3d3d3f3///+2bdt227ZtlQYAzIJ3J7WmygdK" +
  "p4HSMUhEgLAVTSYtR1pjkaAMVuVjikdKAzsQChTDVjQFPyCQo6R0OUlOlyeWk+TpcmI5SZ4uJ5YnyelyYnmSnC5PLCfJ6fLEcpI8" +
  "XU4sJ8nT5cTyJDldTixPktPlieUkOV2eWE6Sp8uJ5SR5upxYZpIsnemSNBPL0ZskRXe6DM3EEvQmyc+dLj0zsey8SSDQCdHEcBI0" +
  "HU4MJ8HT4cSQTnKfRYGMGPUN/AwYLSoD";
/** Bytes that both frames decode to. */
export const ZSTD_CONTENT_BYTES = 5571;

/** A frame of one raw and one run-length block. */
function plainFrame(): Buffer {
  const raw = Buffer.from("raw block");
  const header = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x20, raw.length + 20]);
  const rawBlock = Buffer.from([raw.length << 3, 0, 0]);
  const runBlock = Buffer.from([(20 << 3) | 2 | 1, 0, 0, 0x61]);
  return Buffer.concat([header, rawBlock, raw, runBlock]);
}

function skippableFrame(length: number): Buffer {
  const frame = Buffer.alloc(8 + length);
  frame.writeUInt32LE(0x184d2a50, 0);
  frame.writeUInt32LE(length, 4);
  return frame;
}

export function zstdSamples(): readonly { readonly bytes: Buffer; readonly content: number }[] {
  const checked = Buffer.from(ZSTD_CHECKED, "base64");
  const streamed = Buffer.from(ZSTD_STREAMED, "base64");
  // A window of 8 KiB, not the 2 MiB that zstd states for a pipe: runs are ten times faster.
  streamed[5] = 0x18;
  const plain = plainFrame();
  return [
    { bytes: checked, content: ZSTD_CONTENT_BYTES },
    { bytes: streamed, content: ZSTD_CONTENT_BYTES },
    { bytes: plain, content: 29 },
    { bytes: Buffer.concat([skippableFrame(5), checked, plain]), content: ZSTD_CONTENT_BYTES + 29 },
  ];
}
