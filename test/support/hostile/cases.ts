/**
 * Layers that must not be mounted: how each is made, what the refusal has to name, and what
 * containerd's own unpacking makes of the same image.
 */
import { gzipSync } from "node:zlib";
import { digestOf } from "../../../src/oci/index.ts";
import {
  base256,
  END,
  filter,
  gnuLong,
  packTar,
  paxHeader,
  rawHeader,
  rawMember,
  sampleBytes,
} from "../layers/index.ts";
import type { Fault } from "../registry/fake-registry.ts";
import { blobLayer, layerOf, type HostileLayer } from "./image.ts";

export interface HostileCase {
  readonly name: string;
  readonly layer: () => Promise<HostileLayer> | HostileLayer;
  /** What goes wrong with every answer that carries the blob. */
  readonly fault?: Fault;
  /** What the message holds besides the layer's digest. */
  readonly says: readonly string[];
  /**
   * What containerd says when it unpacks the image. undefined: it takes it; "either": that depends
   * on the machine, or is not to be tried.
   */
  readonly containerd: RegExp | "either" | undefined;
}

const MIB = 1024 * 1024;

/** A sound file, then what the case is about, from offset 1024 on. */
function tar(...members: readonly Buffer[]): HostileLayer {
  const before = rawMember({ name: "before" }, Buffer.from("before"));
  return layerOf(Buffer.concat([before, ...members, END]));
}

/** Different for every seed: containerd keeps what it has once fetched. */
async function sampleTar(seed: number): Promise<Buffer> {
  return packTar([{ name: "sample", data: sampleBytes(3 * MIB, seed) }]);
}

/** With one bit in the middle turned. */
function flipped(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  const at = Math.floor(copy.length / 2);
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}

const symlink = (name: string, linkname: string): Buffer =>
  rawHeader({ name, typeflag: "2", linkname });
const hardLink = (name: string, linkname: string): Buffer =>
  rawHeader({ name, typeflag: "1", linkname });

const REGISTRY_CASES: readonly HostileCase[] = [
  {
    name: "a body that ends too soon, every time",
    layer: async () => layerOf(await sampleTar(1)),
    fault: { kind: "cut", afterBytes: 0 },
    says: ["gave up on blob", "at byte"],
    containerd: /EOF|reset|short read/,
  },
  {
    name: "a byte flipped on the way, uncompressed",
    layer: async () => layerOf(await sampleTar(2), "none"),
    fault: { kind: "flip", at: 2 * MIB },
    says: ["blob has digest sha256:"],
    containerd: /unexpected commit digest/,
  },
  {
    name: "a byte flipped on the way, gzip",
    layer: async () => layerOf(await sampleTar(3)),
    fault: { kind: "flip", at: MIB },
    says: ["blob has digest sha256:", "gzip: "],
    containerd: /unexpected commit digest/,
  },
  {
    name: "another blob under the digest",
    layer: async () =>
      layerOf(await sampleTar(4), "gzip", { digest: digestOf(Buffer.from("other")) }),
    says: ["blob has digest sha256:"],
    containerd: /unexpected commit digest/,
  },
  {
    name: "a blob that is not there",
    layer: async () => layerOf(await sampleTar(5), "gzip", { blob: undefined }),
    says: ["404", "BLOB_UNKNOWN"],
    containerd: /not found/,
  },
  {
    name: "a blob of another size than the manifest says",
    layer: async () => layerOf(await sampleTar(6), "none", { size: 512 }),
    says: ["bytes in the registry, not 512"],
    containerd: /size/,
  },
  {
    name: "a tar of another digest than the config says",
    layer: async () =>
      layerOf(await sampleTar(7), "gzip", { diffId: digestOf(Buffer.from("other")) }),
    says: ["its tar has digest sha256:", "the image's config says sha256:"],
    containerd: /wrong diff id/,
  },
];

const COMPRESSION_CASES: readonly HostileCase[] = [
  {
    name: "gzip with a flipped byte",
    layer: async () => {
      const bytes = await sampleTar(8);
      return blobLayer(flipped(gzipSync(bytes)), bytes);
    },
    says: ["made broken", "gzip: "],
    containerd: /unpigz|corrupt input|checksum|wrong diff id/,
  },
  {
    name: "gzip cut short",
    layer: async () => {
      const bytes = await sampleTar(9);
      return blobLayer(gzipSync(bytes).subarray(0, MIB), bytes);
    },
    says: ["gzip: blob ends inside a member"],
    containerd: /unpigz|unexpected EOF/,
  },
  {
    name: "gzip with rubbish behind",
    layer: async () => {
      const bytes = await sampleTar(10);
      return blobLayer(Buffer.concat([gzipSync(bytes), Buffer.from("rubbish")]), bytes);
    },
    says: ["invalid gzip member header"],
    // Go refuses it, unpigz (which containerd uses where it is installed) does not.
    containerd: "either",
  },
  {
    name: "zstd cut short",
    layer: async () => {
      const bytes = await sampleTar(11);
      const blob = await filter("zstd -q -c", bytes);
      return blobLayer(blob.subarray(0, blob.length / 2), bytes, "zstd");
    },
    says: ["made broken", "zstd: "],
    containerd: /./,
  },
  {
    name: "a layer that is no tar",
    layer: () => layerOf(Buffer.from("#!/bin/sh\necho this is no layer\n".repeat(100))),
    says: ["tar header at offset 0: wrong header checksum"],
    containerd: /invalid tar header/,
  },
  {
    name: "a layer of random bytes",
    layer: () => layerOf(sampleBytes(5000, 7), "none"),
    says: ["tar header at offset 0: wrong header checksum"],
    containerd: /invalid tar header/,
  },
];

const PATH_CASES: readonly HostileCase[] = [
  {
    name: "a path that climbs out of the root",
    layer: () => tar(rawMember({ name: "a/../../../escaped" }, Buffer.from("x"))),
    says: ['tar entry "a/../../../escaped" at offset 1024', "path climbs out of the root"],
    containerd: undefined,
  },
  {
    name: "a hard link that climbs out of the root",
    layer: () => tar(hardLink("link", "../../../../etc/passwd")),
    says: ['tar entry "link" at offset 1024', "link target: path climbs out of the root"],
    containerd: /no such file/,
  },
  {
    name: "a hard link to an absolute path of the host",
    layer: () => tar(hardLink("link", "/etc/passwd")),
    says: ['tar entry "link" at offset 1024', 'hard link to "/etc/passwd"', "not in this layer"],
    containerd: /no such file/,
  },
  {
    name: "a hard link through a symlink out of the root",
    layer: () => tar(symlink("out", "/etc"), hardLink("link", "out/passwd")),
    says: ['tar entry "link" at offset 1536', 'hard link to "out/passwd"', "not in this layer"],
    containerd: /no such file/,
  },
  {
    name: "a circle of symlinks in a path",
    layer: () => tar(symlink("a", "b"), symlink("b", "a"), rawMember({ name: "a/x" })),
    says: ['tar entry "a/x" at offset 2048', "too many symlinks in path"],
    containerd: /too many links/,
  },
  {
    name: "a path through a file",
    layer: () => tar(rawMember({ name: "before/x" })),
    says: ['tar entry "before/x" at offset 1024', 'its parent "before" is not a directory'],
    containerd: /not a directory/,
  },
  {
    name: "a whiteout of the folder above",
    layer: () => tar(rawMember({ name: "d/.wh..." })),
    says: ['tar entry "d/.wh..." at offset 1024', "whiteout of no name"],
    containerd: /invalid whiteout/,
  },
  {
    name: "a name of 256 bytes",
    layer: () => tar(gnuLong("L", `d/${"n".repeat(256)}`), rawMember({ name: "d", magic: "gnu" })),
    says: ['tar entry "d/nnn', "name of 256 bytes (at most 255)"],
    containerd: /file name too long/,
  },
];

const HEADER_CASES: readonly HostileCase[] = [
  {
    name: "a pax header of 2 MiB",
    layer: () => tar(paxHeader([["comment", "c".repeat(2 * MIB)]]), rawMember({ name: "behind" })),
    says: ['tar entry "PaxHeader" at offset 1024', "extension header of", "at most 1048576"],
    containerd: /./,
  },
  {
    name: "a pax header that claims 8 EiB",
    layer: () =>
      tar(rawHeader({ name: "PaxHeader", typeflag: "x", size: base256(2n ** 63n - 1n, 12) })),
    says: ['tar entry "PaxHeader" at offset 1024', "size"],
    containerd: /./,
  },
  {
    name: "a file of negative size",
    layer: () => tar(rawHeader({ name: "negative", size: base256(2n ** 96n - 1n, 12) })),
    says: ['tar entry "negative" at offset 1024', "negative size"],
    containerd: /invalid tar header/,
  },
  {
    name: "a file that ends behind the archive",
    layer: () => tar(rawHeader({ name: "long", size: 10 * MIB })),
    says: ['tar entry "long" at offset 1024', "archive ends inside the data"],
    containerd: /unexpected EOF/,
  },
  {
    name: "an xattr of more than the kernel takes",
    layer: () =>
      tar(paxHeader([["SCHILY.xattr.user.big", "v".repeat(70_000)]]), rawMember({ name: "x" })),
    says: ['tar entry "x" at offset', "xattr value of 70000 bytes (at most 65535)"],
    containerd: /./,
  },
  {
    name: "a device number out of range",
    layer: () => tar(rawHeader({ name: "dev", typeflag: "3", devmajor: 0o1000000 })),
    says: ['tar entry "dev" at offset 1024', "device number 262144:0 is out of range"],
    containerd: undefined,
  },
  {
    name: "a type that nobody knows",
    layer: () => tar(rawHeader({ name: "odd", typeflag: "Z" })),
    says: ['tar entry "odd" at offset 1024', "unknown entry type 0x5a"],
    containerd: /unhandled tar header type/,
  },
  {
    name: "a sparse file of too many chunks",
    layer: () =>
      tar(
        paxHeader([
          ["GNU.sparse.major", "0"],
          ["GNU.sparse.minor", "1"],
          ["GNU.sparse.name", "sparse"],
          ["GNU.sparse.size", String(2 ** 50)],
          ["GNU.sparse.numblocks", "1"],
          ["GNU.sparse.map", "512,512"],
        ]),
        rawMember({ name: "stored" }, Buffer.alloc(512, 1)),
      ),
    says: ['tar entry "sparse" at offset', "chunks, more than 4194304"],
    // It writes the zeros of the hole: a petabyte.
    containerd: "either",
  },
];

export const HOSTILE_CASES: readonly HostileCase[] = [
  ...REGISTRY_CASES,
  ...COMPRESSION_CASES,
  ...PATH_CASES,
  ...HEADER_CASES,
];
