/**
 * What containerd makes of odd layers is what our maps, merged, show. containerd unpacks them into
 * its overlayfs snapshots; the kernel's overlay over those is the expected tree.
 */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ErofsReader } from "../../../src/erofs/index.ts";
import { makeLayerMap, mergeLayers, openLayerMap } from "../../../src/image/index.ts";
import { chainIds, digestOf, parseDiffId } from "../../../src/oci/index.ts";
import {
  compareTrees,
  Containerd,
  Lab,
  needs,
  run,
  walkTree,
  type TreeManifest,
} from "../../support/lab/index.ts";
import {
  chunksOf,
  END,
  gnuLong,
  packTar,
  paxHeader,
  rawMember,
  type PackedMember,
} from "../../support/layers/index.ts";
import { treeOf } from "./map-tree.ts";

const dir = (name: string, fields: Partial<PackedMember> = {}): PackedMember => ({
  name,
  type: "directory",
  mode: 0o755,
  ...fields,
});
const file = (name: string, data = "x", fields: Partial<PackedMember> = {}): PackedMember => ({
  name,
  data,
  mode: 0o644,
  ...fields,
});

async function baseLayer(): Promise<Buffer> {
  const packed = await packTar([
    dir("./"),
    dir("usr", { mode: 0o751, uid: 7, gid: 8 }),
    dir("usr/lib", { mode: 0o2755 }),
    file("usr/lib/a", "lower a"),
    file("usr/lib/b", "lower b"),
    dir("opaque"),
    file("opaque/hidden"),
    dir("kept"),
    file("kept/child", "kept"),
    dir("replaced"),
    file("replaced/gone"),
    file("to-dir"),
    dir("whiteout-then-dir"),
    file("whiteout-then-dir/shows"),
    file("removed"),
    dir("implicit", { mode: 0o700, uid: 11, gid: 12 }),
    dir("implicit/deep", { mode: 0o1777 }),
    file("tail", "t".repeat(700)),
  ]);
  return packed;
}

async function upperLayer(): Promise<Buffer> {
  const packed = await packTar([
    file("./usr/lib/a", "upper a", { mode: 0o4755, uid: 100_000 }),
    { name: "lib", type: "symlink", linkname: "usr/lib" },
    file("lib/via-symlink", "through a symlink of this layer"),
    { name: "abs", type: "symlink", linkname: "/usr/../usr/lib" },
    file("abs/c", "through an absolute one"),
    dir("opaque", { mode: 0o711 }),
    file("opaque/.wh..wh..opq", ""),
    file("opaque/new"),
    file("replaced", "now a file"),
    dir("to-dir"),
    file("to-dir/inside"),
    file(".wh.whiteout-then-dir", ""),
    dir("whiteout-then-dir"),
    file(".wh.removed", ""),
    file("implicit/deep/file", "its parents are described below only"),
    file("brand/new/dirs/file", "nobody describes its parents"),
    file("twice", "first"),
    file("twice", "second, longer", { mode: 0o600 }),
    dir("dir-then-file"),
    file("dir-then-file/lost"),
    file("dir-then-file", "a file"),
    dir("again", { mode: 0o700 }),
    file("again/child"),
    dir("again", { mode: 0o755, uid: 3 }),
    file("linked", "one inode"),
    { name: "usr/link", type: "link", linkname: "/linked" },
    { name: "lib/link2", type: "link", linkname: "./linked" },
    { name: "sym", type: "symlink", linkname: "nowhere" },
    { name: "hard-sym", type: "link", linkname: "sym" },
    { name: "fifo", type: "fifo", mode: 0o622 },
    { name: "char", type: "character-device", devmajor: 1, devminor: 3, mode: 0o666 },
    { name: "block", type: "block-device", devmajor: 8, devminor: 300, mode: 0o660 },
  ]);
  const raw = [
    rawMember({ name: "latin\xe9", mode: 0o640 }, Buffer.from("not UTF-8")),
    gnuLong("L", `long/${"l".repeat(200)}`),
    rawMember({ name: "long", magic: "gnu" }, Buffer.from("long name")),
    paxHeader([
      ["path", "pax/\xc3\xbc"],
      ["mtime", "1234567890.123456789"],
      ["SCHILY.xattr.user.name", "a=b\n\0\xff"],
      ["SCHILY.xattr.security.capability", "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"],
      ["SCHILY.xattr.trusted.overlay.opaque", "y"],
      ["SCHILY.xattr.com.apple.quarantine", "q"],
    ]),
    rawMember({ name: "x", mode: 0o755 }, Buffer.from("pax")),
    paxHeader([["SCHILY.xattr.user.ignored", "on a symlink"]]),
    rawMember({ name: "sym2", typeflag: "2", linkname: "x" }),
    paxHeader([
      ["SCHILY.xattr.security.capability", "\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"],
    ]),
    rawMember({ name: "capable", mode: 0o755 }, Buffer.from("cap")),
    rawMember({ name: "capable-link", mode: 0o700, typeflag: "1", linkname: "capable", uid: 5 }),
    paxHeader([["path", "global-is-ignored"]], "g"),
    rawMember({ name: "named-by-itself" }, Buffer.from("g")),
    END,
  ];
  return Buffer.concat([packed.subarray(0, packed.length - END.length), ...raw]);
}

describe("odd layers", function () {
  this.timeout(120_000);
  let lab: Lab;
  let layers: readonly Buffer[];

  before(async function () {
    needs(this, { root: true, commands: ["gcc", "tar", "mount"], containerd: ["1.6"] });
    lab = await Lab.create();
    layers = [await baseLayer(), await upperLayer()];
  });

  after(async () => {
    // The hook before may have skipped.
    await (lab as Lab | undefined)?.[Symbol.asyncDispose]();
  });

  it("merge to the tree that containerd's unpacking gives", async () => {
    const expected = await unpackWithContainerd();
    const actual = await mapAndMerge();
    assert.deepEqual(compareTrees(withoutTimesOfDay(expected), withoutTimesOfDay(actual)), []);
    assert.ok(actual.size > 40, String(actual.size));
  });

  async function unpackWithContainerd(): Promise<TreeManifest> {
    const containerd = await Containerd.start(lab, { line: "1.6" });
    const archive = await writeOciArchive();
    await containerd.ctr(["image", "import", "--all-platforms", archive]);
    const target = await lab.makeFolder("view");
    const diffIds = layers.map((tar) => parseDiffId(digestOf(tar)));
    const top = chainIds(diffIds).at(-1) ?? "";
    const { stdout } = await containerd.ctr(["snapshot", "view", "--target", target, "view", top]);
    const [command = "", ...args] = stdout.trim().split(/\s+/);
    assert.equal(command, "mount");
    await run(command, args);
    lab.defer(async () => {
      await run("umount", [target]);
    });
    return walkTree(target);
  }

  async function writeOciArchive(): Promise<string> {
    const folder = await lab.makeFolder("oci");
    const blobs = join(folder, "blobs", "sha256");
    await mkdir(blobs, { recursive: true });
    const put = async (bytes: Buffer, mediaType: string): Promise<object> => {
      const digest = digestOf(bytes);
      await writeFile(join(blobs, digest.slice(7)), bytes);
      return { mediaType, digest, size: bytes.length };
    };
    const oci = "application/vnd.oci.image";
    const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
    const config = {
      architecture: "amd64",
      os: "linux",
      config: {},
      rootfs: { type: "layers", diff_ids: layers.map((tar) => digestOf(tar)) },
    };
    const manifest = {
      schemaVersion: 2,
      mediaType: `${oci}.manifest.v1+json`,
      config: await put(json(config), `${oci}.config.v1+json`),
      layers: await Promise.all(
        layers.map(async (tar) => put(gzipSync(tar), `${oci}.layer.v1.tar+gzip`)),
      ),
    };
    const descriptor = await put(json(manifest), `${oci}.manifest.v1+json`);
    const annotations = { "org.opencontainers.image.ref.name": "odd" };
    const index = {
      schemaVersion: 2,
      manifests: [{ ...descriptor, annotations, platform: { os: "linux", architecture: "amd64" } }],
    };
    await writeFile(join(folder, "index.json"), json(index));
    await writeFile(join(folder, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }));
    const archive = lab.path("odd.tar");
    await run("tar", ["-C", folder, "-cf", archive, "."]);
    return archive;
  }

  async function mapAndMerge(): Promise<TreeManifest> {
    const readers: ErofsReader[] = [];
    for (const [index, tar] of layers.entries()) {
      const blob = gzipSync(tar);
      const mapPath = lab.path(`${index}.map`);
      await makeLayerMap({
        blob: chunksOf(blob),
        descriptor: { digest: digestOf(blob), size: blob.length, mediaType: "test" },
        diffId: parseDiffId(digestOf(tar)),
        mapPath,
        signal: new AbortController().signal,
      });
      await using map = await openLayerMap(mapPath);
      readers.push(ErofsReader.open(await map.readMetadata()));
    }
    return treeOf(ErofsReader.open(mergeLayers(readers)), layers);
  }
});

/** Directories that the upper layer does not describe, and the root, get the time of unpacking. */
const UNDESCRIBED: ReadonlySet<string> = new Set([
  ".",
  "./brand",
  "./brand/new",
  "./brand/new/dirs",
  "./implicit",
  "./implicit/deep",
  "./long",
  "./pax",
  "./usr",
  "./usr/lib",
]);

function withoutTimesOfDay(tree: TreeManifest): TreeManifest {
  return new Map(
    [...tree].map(([path, entry]) => [
      path,
      UNDESCRIBED.has(path) ? { ...entry, mtime: "-" } : entry,
    ]),
  );
}
