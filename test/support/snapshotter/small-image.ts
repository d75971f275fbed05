/** A busybox image of three layers as an OCI layout, and its tree unpacked layer by layer. */
import { createHash } from "node:crypto";
import { cp, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { chainIds, digestOf, parseDiffId } from "../../../src/oci/index.ts";
import type { ChainId } from "../../../src/oci/index.ts";

export interface SmallImage {
  /** An OCI layout with one manifest, tagged `1`. */
  readonly layout: string;
  readonly chainIds: readonly ChainId[];
  readonly layerDigests: readonly string[];
  /** By chain: the merged tree that a provider would mount. */
  readonly trees: ReadonlyMap<ChainId, string>;
}

type Entry =
  | { readonly path: string; readonly file: Buffer; readonly mode: number }
  | { readonly path: string; readonly link: string }
  | { readonly path: string; readonly folder: true };

async function layers(): Promise<readonly (readonly Entry[])[]> {
  const busybox = await readFile("/bin/busybox");
  const text = (path: string, content: string): Entry => ({
    path,
    file: Buffer.from(content),
    mode: 0o644,
  });
  return [
    [
      { path: "bin", folder: true },
      { path: "bin/busybox", file: busybox, mode: 0o755 },
      { path: "bin/sh", link: "busybox" },
      { path: "bin/cat", link: "busybox" },
      { path: "bin/ls", link: "busybox" },
      { path: "etc", folder: true },
      text("etc/motd", "one\n"),
      { path: "old", folder: true },
      text("old/file", "deleted later\n"),
    ],
    [text("etc/motd", "two\n"), { path: "old", folder: true }, text("old/.wh.file", "")],
    [text("top", "three\n")],
  ];
}

async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const stream = pack();
  const mtime = new Date(1_600_000_000_000);
  for (const entry of entries) {
    if ("file" in entry) stream.entry({ name: entry.path, mode: entry.mode, mtime }, entry.file);
    else if ("link" in entry) {
      stream.entry({ name: entry.path, type: "symlink", linkname: entry.link, mtime });
    } else stream.entry({ name: entry.path, type: "directory", mode: 0o755, mtime });
  }
  stream.finalize();
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

async function applyTo(tree: string, entries: readonly Entry[]): Promise<void> {
  for (const entry of entries) {
    const path = join(tree, entry.path);
    if ("folder" in entry) await mkdir(path, { recursive: true });
    else if ("link" in entry) await symlink(entry.link, path);
    else if (entry.path.includes("/.wh.")) await rm(path.replace("/.wh.", "/"));
    else await writeFile(path, entry.file, { mode: entry.mode });
  }
}

export async function makeSmallImage(folder: string): Promise<SmallImage> {
  const layout = join(folder, "layout");
  const blobs = join(layout, "blobs", "sha256");
  await mkdir(blobs, { recursive: true });
  const store = async (mediaType: string, bytes: Buffer): Promise<Record<string, unknown>> => {
    const hex = createHash("sha256").update(bytes).digest("hex");
    await writeFile(join(blobs, hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const all = await layers();
  const tars = await Promise.all(all.map(tarOf));
  const diffIds = tars.map((tar) => parseDiffId(digestOf(tar)));
  const type = "application/vnd.oci.image";
  const descriptors = await Promise.all(
    tars.map((tar) => store(`${type}.layer.v1.tar+gzip`, gzipSync(tar))),
  );
  const config = {
    architecture: process.arch === "arm64" ? "arm64" : "amd64",
    os: "linux",
    config: { Cmd: ["/bin/sh"], Env: ["PATH=/bin"] },
    rootfs: { type: "layers", diff_ids: diffIds },
  };
  const configBytes = Buffer.from(JSON.stringify(config));
  const manifest = {
    schemaVersion: 2,
    mediaType: `${type}.manifest.v1+json`,
    config: await store(`${type}.config.v1+json`, configBytes),
    layers: descriptors,
  };
  const manifestBytes = Buffer.from(JSON.stringify(manifest));
  const described = await store(`${type}.manifest.v1+json`, manifestBytes);
  const annotations = {
    "org.opencontainers.image.ref.name": "1",
    "io.containerd.image.name": "example.com/small:1",
  };
  const index = { schemaVersion: 2, manifests: [{ ...described, annotations }] };
  await writeFile(join(layout, "index.json"), JSON.stringify(index));
  await writeFile(join(layout, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const chains = chainIds(diffIds);
  const trees = await makeTrees(join(folder, "trees"), all, chains);
  return { layout, chainIds: chains, layerDigests: descriptors.map(digestText), trees };
}

function digestText(descriptor: Record<string, unknown>): string {
  return String(descriptor["digest"]);
}

async function makeTrees(
  folder: string,
  all: readonly (readonly Entry[])[],
  chains: readonly ChainId[],
): Promise<Map<ChainId, string>> {
  const trees = new Map<ChainId, string>();
  let below: string | undefined;
  for (const [position, chain] of chains.entries()) {
    const tree = join(folder, String(position));
    await mkdir(dirname(tree), { recursive: true });
    if (below === undefined) await mkdir(tree);
    else await cp(below, tree, { recursive: true, verbatimSymlinks: true });
    await applyTo(tree, all[position] ?? []);
    trees.set(chain, tree);
    below = tree;
  }
  return trees;
}
