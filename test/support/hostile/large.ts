/** Sound but large layers in small blobs: their cost must be bounded, or they are refused. */
import { createHash } from "node:crypto";
import { createGzip } from "node:zlib";
import { parseDigest } from "../../../src/oci/index.ts";
import { base256, END, padded, paxHeader, rawHeader, rawMember } from "../layers/index.ts";
import { blobLayer, type HostileLayer } from "./image.ts";

const BATCH_BYTES = 4 * 1024 * 1024;

/** Compresses as it comes: the tar may be of any length. */
export async function gzipLayer(pieces: Iterable<Buffer>, level = 1): Promise<HostileLayer> {
  const hash = createHash("sha256");
  const gzip = createGzip({ level });
  const blob: Buffer[] = [];
  gzip.on("data", (chunk: Buffer) => blob.push(chunk));
  const ended = new Promise((resolve) => gzip.once("end", resolve));
  for (const batch of batches(pieces)) {
    hash.update(batch);
    if (!gzip.write(batch)) await new Promise((resolve) => gzip.once("drain", resolve));
  }
  gzip.end();
  await ended;
  return blobLayer(Buffer.concat(blob), parseDigest(`sha256:${hash.digest("hex")}`));
}

function* batches(pieces: Iterable<Buffer>): Generator<Buffer> {
  let batch: Buffer[] = [];
  let bytes = 0;
  for (const piece of pieces) {
    batch.push(piece);
    bytes += piece.length;
    if (bytes < BATCH_BYTES) continue;
    yield Buffer.concat(batch, bytes);
    batch = [];
    bytes = 0;
  }
  yield Buffer.concat(batch, bytes);
}

/** Empty files, a thousand a folder. */
export function* manyFiles(count: number): Generator<Buffer> {
  for (let index = 0; index < count; index += 1) {
    const folder = `d${Math.floor(index / 1000)}`;
    if (index % 1000 === 0) yield rawHeader({ name: folder, typeflag: "5", mode: 0o755 });
    yield rawHeader({ name: `${folder}/file-${index}` });
  }
  yield END;
}

export function* manyLinks(count: number): Generator<Buffer> {
  yield rawMember({ name: "target" }, Buffer.from("one file"));
  for (let index = 0; index < count; index += 1) {
    yield rawHeader({ name: `links/${index}`, typeflag: "1", linkname: "target" });
  }
  yield END;
}

function fileHeader(name: string, bytes: number): Buffer {
  return rawHeader({ name, size: base256(BigInt(bytes), 12) });
}

/** One file of zeros. */
export function* zeros(bytes: number): Generator<Buffer> {
  yield fileHeader("zeros", bytes);
  const piece = Buffer.alloc(BATCH_BYTES);
  for (let rest = bytes; rest > 0; rest -= piece.length) yield piece.subarray(0, rest);
  yield END;
}

/** Every entry names 2,000 folders that nobody describes. */
export function* deepPaths(count: number): Generator<Buffer> {
  for (let index = 0; index < count; index += 1) {
    yield paxHeader([["path", `${index}/${"a/".repeat(2000)}f`]]);
    yield rawHeader({ name: "short" });
  }
  yield END;
}

/** Every path goes through 250 symlinks of 1,900 steps each. */
export function* longWays(count: number): Generator<Buffer> {
  yield rawHeader({ name: "d", typeflag: "5", mode: 0o755 });
  for (let index = 0; index < 250; index += 1) {
    const next = index === 249 ? "d" : `l${index + 1}`;
    const linkpath = `${"d/../".repeat(800)}${next}`;
    yield paxHeader([["linkpath", linkpath]]);
    yield rawHeader({ name: `l${index}`, typeflag: "2" });
  }
  for (let index = 0; index < count; index += 1) yield rawHeader({ name: `l0/f${index}` });
  yield END;
}

/** Every file has an xattr of 60 KB that no other has. */
export function* manyXattrs(count: number): Generator<Buffer> {
  for (let index = 0; index < count; index += 1) {
    const value = String(index).padEnd(60_000, "x");
    yield paxHeader([["SCHILY.xattr.user.large", value]]);
    yield rawHeader({ name: `f${index}` });
  }
  yield END;
}

/** Sparse files whose holes make the most of the smallest piece: 32 MiB of chunks each. */
export function* manyChunks(count: number): Generator<Buffer> {
  const size = 4_000_000 * 512;
  for (let index = 0; index < count; index += 1) {
    yield paxHeader([
      ["GNU.sparse.major", "0"],
      ["GNU.sparse.minor", "1"],
      ["GNU.sparse.name", `sparse-${index}`],
      ["GNU.sparse.size", String(size)],
      ["GNU.sparse.numblocks", "1"],
      ["GNU.sparse.map", "512,512"],
    ]);
    yield rawMember({ name: "stored" }, padded(Buffer.from(String(index))));
  }
  yield END;
}

export interface LimitedCase {
  readonly name: string;
  readonly tar: () => Iterable<Buffer>;
  readonly says: readonly string[];
  /** What its map job may hold at most. */
  readonly rssMax: number;
}

const MIB = 1024 * 1024;

/** Small blobs that ask for much: refused by a limit with a name, long before memory runs out. */
export const REFUSED_BY_LIMIT: readonly LimitedCase[] = [
  {
    name: "a million folders in 500 paths",
    tar: () => deepPaths(500),
    says: ['tar entry "131/a/a/a/', "more than 262144 folders that only paths name"],
    rssMax: 500 * MIB,
  },
  {
    name: "ways of 400,000 steps",
    tar: () => longWays(400),
    says: ['tar entry "l0/f', "more than 67108864 steps through folders"],
    rssMax: 300 * MIB,
  },
  {
    name: "640 MB of chunks in 20 sparse files",
    tar: () => manyChunks(20),
    says: ['tar entry "sparse-16" at offset', "more than 536870912 bytes of metadata"],
    rssMax: 200 * MIB,
  },
  {
    name: "a file of 300 GiB",
    tar: () => [fileHeader("zeros", 300 * 1024 ** 3)],
    says: ['tar entry "zeros" at offset 0', "more than 274877906944 bytes of tar"],
    rssMax: 200 * MIB,
  },
];
