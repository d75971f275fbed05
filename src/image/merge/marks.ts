/**
 * The marks of overlayfs in a layer's metadata, and what becomes of xattrs under its name.
 *
 * Source: the kernel's Documentation/filesystems/overlayfs.rst ("whiteouts and opaque
 * directories", "Nesting overlayfs mounts") and `fs/overlayfs/xattrs.c`.
 */
import { FILE_TYPE, FILE_TYPE_MASK, type ErofsInode } from "../../erofs/index.ts";

const OVERLAY_PREFIX = "trusted.overlay.";
const ESCAPED_PREFIX = "trusted.overlay.overlay.";

/** Value "y": what lies below the directory is not seen. */
export const OPAQUE_XATTR = "trusted.overlay.opaque";

/**
 * Set on the root of a layer that has no entry for it: its attributes are then those of the
 * first root below that is described, as they are of nobody's making. Never seen, since
 * overlayfs keeps all names under its prefix to itself.
 */
export const IMPLICIT_ROOT_XATTR = "trusted.overlay.faasnet.implicit-root";

/**
 * Set on a directory that the layer names as a parent before it describes it, if ever. containerd's
 * unpacker gives it the attributes of the directory of the same path in the topmost layer below
 * that has the path; one that is described later keeps the xattrs of those. The value is one of
 * `IMPLICIT`.
 */
export const IMPLICIT_XATTR = "trusted.overlay.faasnet.implicit";

export const IMPLICIT = {
  /** In a described directory, whose group it has if that has the set-group-ID bit. */
  named: Buffer.from("y"),
  /** In a directory that was only named itself when it was named. */
  inNamed: Buffer.from("p"),
  describedLater: Buffer.from("d"),
} as const;

export function isMark(value: Uint8Array | undefined, mark: Uint8Array): boolean {
  return value !== undefined && Buffer.compare(value, mark) === 0;
}

export function isWhiteout(inode: ErofsInode): boolean {
  const isCharacterDevice = (inode.mode & FILE_TYPE_MASK) === FILE_TYPE.characterDevice;
  return isCharacterDevice && inode.rdevMajor === 0 && inode.rdevMinor === 0;
}

export function isOpaque(xattrs: ReadonlyMap<string, Uint8Array>): boolean {
  const value = xattrs.get(OPAQUE_XATTR);
  return value?.length === 1 && value[0] === "y".charCodeAt(0);
}

/**
 * The xattrs that an overlay shows of a layer: all but its own. Those escaped for a nested
 * overlay ("trusted.overlay.overlay.x") stay as they are, because the overlay that a container
 * runs on unescapes them (Linux 6.7) or hides them (before), as it would on unpacked layers.
 */
export function shownXattrs(
  xattrs: ReadonlyMap<string, Uint8Array>,
): ReadonlyMap<string, Uint8Array> {
  let isClean = true;
  for (const name of xattrs.keys()) isClean &&= !isPrivate(name);
  if (isClean) return xattrs;
  return new Map([...xattrs].filter(([name]) => !isPrivate(name)));
}

function isPrivate(name: string): boolean {
  return name.startsWith(OVERLAY_PREFIX) && !name.startsWith(ESCAPED_PREFIX);
}
