/** The tree that the kernel's overlayfs shows of an image, as every layer says it. */
import { expectedTree } from "./oracle.ts";
import type { Lab } from "./lab.ts";
import type { LabImageName } from "./paths.ts";
import type { Registry } from "./registry.ts";
import type { TreeEntry, TreeManifest } from "./tree.ts";

/**
 * containerd sets times before 1970 to 1970 when it unpacks a layer (its archive package's
 * boundTime), so the kernel's tree lacks what the layer says and what we show.
 */
export async function unclampedTree(
  lab: Lab,
  registry: Registry,
  image: LabImageName,
): Promise<TreeManifest> {
  const manifest = await expectedTree(lab, registry, image);
  const path = "./edge/old";
  const entry: TreeEntry | undefined = manifest.get(path);
  if (entry === undefined) return manifest;
  return new Map([...manifest, [path, { ...entry, mtime: "-2.000000000" }]]);
}
