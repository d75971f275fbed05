/**
 * What an image's tree is: the kernel's overlayfs over the layers that containerd unpacked. It
 * is kept by manifest digest, so that an image is unpacked once for all runs.
 */
import { randomUUID } from "node:crypto";
import { createHash } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { Containerd } from "./containerd.ts";
import { unmountUnder } from "./kernel.ts";
import type { Lab } from "./lab.ts";
import { labFolder, labImage, type LabImageName } from "./paths.ts";
import { run } from "./process.ts";
import type { Registry } from "./registry.ts";
import { TREE_FIELDS, parseTree, treeWalker, walkTreeText, type TreeManifest } from "./tree.ts";

/** Of what is kept in .lab/trees: raised when the oracle says something else. */
const ORACLE_VERSION = 2;
const VIEW_TRIES_MAX = 10;

interface Descriptor {
  readonly digest: string;
}

async function fetchJson(registry: Registry, path: string): Promise<unknown> {
  const accept = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
  ].join(", ");
  const response = await fetch(`http://${registry.address}/v2/${path}`, { headers: { accept } });
  if (!response.ok) throw new Error(`GET ${path}: ${response.status}`);
  return response.json();
}

export interface ImageFacts {
  readonly manifest: {
    readonly config: Descriptor;
    readonly layers: readonly (Descriptor & { size: number })[];
  };
  readonly diffIds: readonly string[];
  /** Bottom first; the last names the image's file tree. */
  readonly chainIds: readonly string[];
}

/** Source: OCI image-spec, config.md, "Layer ChainID". */
export function chainIdsOf(diffIds: readonly string[]): readonly string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    const digest = createHash("sha256")
      .update(`${below ?? ""} ${diffId}`)
      .digest("hex");
    chain.push(below === undefined ? diffId : `sha256:${digest}`);
  }
  return chain;
}

export async function imageFacts(registry: Registry, repository: string): Promise<ImageFacts> {
  const manifest = (await fetchJson(
    registry,
    `${repository}/manifests/1`,
  )) as ImageFacts["manifest"];
  const config = (await fetchJson(registry, `${repository}/blobs/${manifest.config.digest}`)) as {
    rootfs: { diff_ids: string[] };
  };
  const diffIds = config.rootfs.diff_ids;
  return { manifest, diffIds, chainIds: chainIdsOf(diffIds) };
}

/**
 * Makes a view that stays. Unlike `prepare`, ctr's `view` does not keep what it makes from the
 * garbage collection, and one may be under way (a pull starts it when it ends): then once more.
 */
export async function viewSnapshot(
  containerd: Containerd,
  snapshotter: string,
  key: string,
  parent: string,
): Promise<void> {
  const snapshots = ["snapshots", "--snapshotter", snapshotter];
  for (let tries = 1; ; tries += 1) {
    await containerd.ctr([...snapshots, "view", key, parent]);
    const kept = await containerd.ctr([...snapshots, "label", key, "containerd.io/gc.root=lab"], {
      allowFailure: true,
    });
    if (kept.status === 0) return;
    if (tries === VIEW_TRIES_MAX || !kept.stderr.includes("does not exist")) {
      throw new Error(`view of ${parent}: ${kept.stderr}`);
    }
  }
}

/** Mounts a read-only view of an image by a snapshotter of containerd; where it is mounted. */
export async function mountView(
  lab: Lab,
  containerd: Containerd,
  chainId: string,
  snapshotter: string,
): Promise<string> {
  const folder = await lab.makeFolder("view");
  const key = basename(folder);
  const snapshots = ["snapshots", "--snapshotter", snapshotter];
  await viewSnapshot(containerd, snapshotter, key, chainId);
  const { stdout } = await containerd.ctr([...snapshots, "mounts", folder, key]);
  lab.defer(async () => {
    await unmountUnder(folder);
    await containerd.ctr([...snapshots, "rm", key], { allowFailure: true });
  });
  await run("sh", ["-ec", stdout]); // ctr prints the mount command
  return folder;
}

/**
 * A layer that does not name its root folder leaves that folder's time to the unpacker. The image
 * says nothing, so the time of unpacking becomes 1970, as where nothing is unpacked.
 */
function withoutUnpackTime(text: string, startedSeconds: number): string {
  const end = text.indexOf("\n");
  const fields = text.slice(0, end).split("\t");
  const at = 1 + TREE_FIELDS.indexOf("mtime");
  if (Number(fields[at]) >= startedSeconds) fields[at] = "0.000000000";
  return fields.join("\t") + text.slice(end);
}

/** Pulls by overlayfs, mounts and walks. */
async function unpackAndWalk(lab: Lab, registry: Registry, name: LabImageName): Promise<string> {
  const startedSeconds = Math.floor(Date.now() / 1000);
  const containerd = await Containerd.start(lab, { line: "2" });
  await containerd.pull(registry.reference(name));
  const chainId = (await imageFacts(registry, name)).chainIds.at(-1) ?? "";
  const folder = await mountView(lab, containerd, chainId, "overlayfs");
  const text = await walkTreeText(folder);
  await unmountUnder(folder);
  await containerd.stop();
  return withoutUnpackTime(text, startedSeconds);
}

export async function expectedTree(
  lab: Lab,
  registry: Registry,
  name: LabImageName,
): Promise<TreeManifest> {
  const folder = join(labFolder, "trees");
  const walker = basename(await treeWalker());
  const digest = labImage(name).digest.replace("sha256:", "");
  const file = join(folder, `${digest}-${walker}-${ORACLE_VERSION}.tsv`);
  const kept = await readFile(file, "utf8").catch(() => undefined);
  if (kept !== undefined) return parseTree(kept);
  const text = await unpackAndWalk(lab, registry, name);
  await mkdir(folder, { recursive: true });
  const part = `${file}.${process.pid}-${randomUUID()}`;
  await writeFile(part, text);
  await rename(part, file);
  return parseTree(text);
}
