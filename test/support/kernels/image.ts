/** The image that the machines mount: two layers as an OCI layout, and the tree they make. */
import { createHash, randomFillSync } from "node:crypto";
import { chmod, link, lutimes, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { run } from "../fuse/keeper-fixture.ts";
import { walkTreeText } from "../lab/tree.ts";

const MIB = 1 << 20;
const SMALL_FILES = 120;
const TIME_SECONDS = 1_600_000_000;

export interface TestImage {
  /** For `faasnet mount`. */
  readonly layout: string;
  /** What a walk of the mounted image prints (tree-walk.c). */
  readonly expected: string;
}

async function fill(path: string, bytes: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, randomFillSync(Buffer.alloc(bytes)));
}

/** One tree that is both the lower layer and, changed afterwards, what the image shows. */
async function makeLower(tree: string): Promise<void> {
  await fill(join(tree, "data", "big"), 2 * MIB + 4321);
  await fill(join(tree, "data", "gone"), 5000);
  await fill(join(tree, "data", "replaced"), 70_000);
  for (let number = 0; number < SMALL_FILES; number += 1) {
    await fill(join(tree, "many", `file-${number}`), (number * 97) % 3000);
  }
  await writeFile(join(tree, "empty"), "");
  await link(join(tree, "data", "big"), join(tree, "hard link"));
  await symlink("data/big", join(tree, "link"));
  await writeFile(join(tree, "setuid"), "#!/bin/sh\n");
  await chmod(join(tree, "setuid"), 0o4755);
  await run("mknod", [join(tree, "null"), "c", "1", "3"]);
  await run("chown", ["-h", "12345:4000000000", join(tree, "empty")]);
}

async function makeUpper(tree: string, changes: string): Promise<void> {
  for (const folder of [tree, changes]) {
    await mkdir(join(folder, "data"), { recursive: true });
    await writeFile(join(folder, "data", "replaced"), "by the upper layer\n");
    await writeFile(join(folder, "added"), "a".repeat(10_000));
  }
  await rm(join(tree, "data", "gone"));
  await writeFile(join(changes, "data", ".wh.gone"), "");
}

async function tarOf(folder: string, path: string): Promise<void> {
  const plain = ["--format=posix", "--numeric-owner", "--sort=name", `--mtime=@${TIME_SECONDS}`];
  await run("tar", ["-C", folder, ...plain, "-cf", path, "."]);
}

/** The walk shows times; tar writes them all the same. */
async function setTimes(tree: string): Promise<void> {
  const paths = (await run("find", [tree, "-print0"])).split("\0").filter((path) => path !== "");
  for (const path of paths) await lutimes(path, TIME_SECONDS, TIME_SECONDS);
}

export async function makeTestImage(folder: string): Promise<TestImage> {
  const [tree, changes, layout] = ["tree", "changes", "layout"].map((name) => join(folder, name));
  if (tree === undefined || changes === undefined || layout === undefined) throw new Error("names");
  await mkdir(tree);
  await makeLower(tree);
  await tarOf(tree, join(folder, "0.tar"));
  await makeUpper(tree, changes);
  await tarOf(changes, join(folder, "1.tar"));
  await setTimes(tree);
  await writeLayout(layout, [join(folder, "0.tar"), join(folder, "1.tar")]);
  return { layout, expected: await walkTreeText(tree) };
}

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

/** The lower layer gzip, the upper one as it is. */
async function writeLayout(layout: string, tars: readonly string[]): Promise<void> {
  const blobs = join(layout, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const store = async (type: string, bytes: Uint8Array): Promise<Descriptor> => {
    const digest = sha256(bytes);
    await writeFile(join(blobs, digest.slice("sha256:".length)), bytes);
    return { mediaType: `application/vnd.oci.image.${type}`, digest, size: bytes.length };
  };
  const json = (value: object): Buffer => Buffer.from(JSON.stringify(value));
  const layers: Descriptor[] = [];
  const diffIds: string[] = [];
  for (const [index, path] of tars.entries()) {
    const bytes = await readFile(path);
    diffIds.push(sha256(bytes));
    if (index > 0) layers.push(await store("layer.v1.tar", bytes));
    else layers.push(await store("layer.v1.tar+gzip", await promisify(gzip)(bytes)));
  }
  const config = await store(
    "config.v1+json",
    json({
      architecture: "amd64",
      os: "linux",
      config: {},
      rootfs: { type: "layers", diff_ids: diffIds },
    }),
  );
  const manifest = await store(
    "manifest.v1+json",
    json({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      config,
      layers,
    }),
  );
  const annotations = { "org.opencontainers.image.ref.name": "1" };
  const index = { schemaVersion: 2, manifests: [{ ...manifest, annotations }] };
  await writeFile(join(layout, "index.json"), json(index));
  await writeFile(join(layout, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }));
}
