/** Questions to the kernel's mount table. */
import type { MountInfo } from "../base/mountinfo.ts";
import { mountAt } from "../base/mountinfo.ts";
import type { MountedChain } from "./mount-state.ts";

/** What the keeper's mounts say of themselves: type and source. */
export const KEEPER_FS_TYPE = "fuse.faasnet";
export const EROFS_FS_TYPE = "erofs";

function splitEscaped(text: string, separator: string): string[] {
  const parts: string[] = [];
  let part = "";
  for (let index = 0; index < text.length; index += 1) {
    const char = text[index] ?? "";
    if (char === "\\" && index + 1 < text.length) {
      part += text[index + 1] ?? "";
      index += 1;
    } else if (char === separator) {
      parts.push(part);
      part = "";
    } else part += char;
  }
  return [...parts, part];
}

/** All lower folders of all overlays, as their mounters named them (perhaps relative). */
export function overlayLowers(mounts: readonly MountInfo[]): Set<string> {
  const lowers = new Set<string>();
  for (const mount of mounts) {
    if (mount.fsType !== "overlay") continue;
    // Commas inside a path are escaped; colons between paths are not.
    for (const option of mount.superOptions.split(/(?<!\\),/)) {
      const equals = option.indexOf("=");
      const key = option.slice(0, equals);
      if (key !== "lowerdir" && key !== "lowerdir+" && key !== "datadir+") continue;
      const value = option.slice(equals + 1);
      const paths = key === "lowerdir" ? splitEscaped(value, ":") : [value];
      for (const path of paths) if (path !== "") lowers.add(path);
    }
  }
  return lowers;
}

/**
 * Whether an overlay in this mount namespace has the path as a lower folder. Overlayfs works on a
 * private clone of the mount, so umount2(2) would not say EBUSY.
 */
export function isOverlayLower(lowers: ReadonlySet<string>, path: string): boolean {
  if (lowers.has(path)) return true;
  for (const lower of lowers) {
    // containerd shortens long lists: paths relative to a folder that is not recorded.
    if (!lower.startsWith("/") && path.endsWith(`/${lower}`)) return true;
  }
  return false;
}

export type ChainHealth = "alive" | "dead" | "absent";

/**
 * Whether a chain mounted earlier still works: its own mount is there and, as a mount pins the FUSE
 * connections it began with, those are the ones served now.
 */
export function chainHealth(
  chain: MountedChain,
  mounts: readonly MountInfo[],
  servedLayers: ReadonlyMap<string, string>,
  servedTrees: ReadonlyMap<string, string>,
): ChainHealth {
  const mount = mountAt(mounts, chain.path);
  if (mount === undefined) return "absent";
  const fsType = chain.mode === "fuse" ? KEEPER_FS_TYPE : EROFS_FS_TYPE;
  if (mount.fsType !== fsType || mount.device !== chain.device) return "dead";
  if (chain.mode === "fuse") {
    return servedTrees.get(chain.chainId) === chain.path ? "alive" : "dead";
  }
  const isServed = chain.layers.every((layer) => {
    const mountpoint = servedLayers.get(layer.layerId);
    return mountpoint !== undefined && mountAt(mounts, mountpoint)?.device === layer.device;
  });
  return isServed ? "alive" : "dead";
}
