/** From a tar entry to the attributes and data of one inode, as containerd would have made it. */
import type { ErofsAttributes, ErofsData, ErofsExtent } from "../../erofs/index.ts";
import { ACCESS_ACL_XATTR, DEFAULT_ACL_XATTR, EMPTY_ACL, isAcl, withAcls } from "../acl.ts";
import { OWNER_ID_MAX, RDEV_MAJOR_MAX, RDEV_MINOR_MAX, TAR_PATH_BYTES_MAX } from "../limits.ts";
import type { TarEntry, TarEntryType } from "../tar/entry.ts";
import { tarError } from "../tar/error.ts";
import { isBlockAligned } from "../tar/sparse.ts";

/** Source: Linux stat.h. */
const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
const S_IFLNK = 0o120000;
export const S_ISGID = 0o2000;

const FILE_TYPE_BITS: Readonly<Record<Exclude<TarEntryType, "hard-link">, number>> = {
  "block-device": 0o060000,
  "char-device": S_IFCHR,
  directory: S_IFDIR,
  fifo: 0o010000,
  file: 0o100000,
  symlink: S_IFLNK,
};

/** The data device of a layer's own metadata. */
const LAYER_DEVICE = 1;
const NOTHING: ReadonlyMap<string, Uint8Array> = new Map();

export function isDirectory(mode: number): boolean {
  return (mode & S_IFMT) === S_IFDIR;
}

export function isSymlink(mode: number): boolean {
  return (mode & S_IFMT) === S_IFLNK;
}

function isRegularFile(mode: number): boolean {
  return (mode & S_IFMT) === FILE_TYPE_BITS.file;
}

export function toAttributes(
  entry: TarEntry,
  type: Exclude<TarEntryType, "hard-link">,
): ErofsAttributes {
  const isDevice = type === "char-device" || type === "block-device";
  if (isDevice && !isDeviceNumber(entry)) {
    throw entryError(entry, `device number ${entry.rdevMajor}:${entry.rdevMinor} is out of range`);
  }
  // Linux has no permissions of symlinks: they are always 0777.
  const permissions = type === "symlink" ? 0o777 : entry.mode;
  const mode = FILE_TYPE_BITS[type] | permissions;
  checkOwner(entry);
  return {
    mode,
    uid: entry.uid,
    gid: entry.gid,
    mtimeSec: entry.mtimeSec,
    mtimeNsec: entry.mtimeNsec,
    rdevMajor: isDevice ? entry.rdevMajor : 0,
    rdevMinor: isDevice ? entry.rdevMinor : 0,
    xattrs: withAcls(NOTHING, keptXattrs(entry, mode), mode),
  };
}

/** A directory that was there and is described once more: its own xattrs and the new ones. */
export function describedAgain(
  held: ReadonlyMap<string, Uint8Array>,
  entry: TarEntry,
): ErofsAttributes {
  const attributes = toAttributes(entry, "directory");
  const { mode } = attributes;
  return { ...attributes, xattrs: withAcls(held, keptXattrs(entry, mode), mode) };
}

/**
 * One that was only named before: it may have ACLs of a lower layer then, which the merge knows.
 * Those that the entry takes away are kept as empty ones.
 */
export function describedLater(
  held: ReadonlyMap<string, Uint8Array>,
  entry: TarEntry,
): ErofsAttributes {
  const attributes = describedAgain(held, entry);
  const xattrs = new Map(attributes.xattrs);
  for (const name of [ACCESS_ACL_XATTR, DEFAULT_ACL_XATTR]) {
    const isTaken = (entry.xattrs.has(name) || held.has(name)) && !xattrs.has(name);
    if (isTaken) xattrs.set(name, EMPTY_ACL);
  }
  return { ...attributes, xattrs };
}

/**
 * What a hard link entry does to the inode that it names: containerd applies its owner, xattrs,
 * mode (also into an ACL) and time through the new name. Its chown makes the kernel drop file
 * capabilities, which only come back if the link's own header carries them.
 */
export function linkedAttributes(inode: ErofsAttributes, link: TarEntry): ErofsAttributes {
  checkOwner(link);
  const permissions = isSymlink(inode.mode) ? 0o777 : link.mode;
  const xattrs = new Map(inode.xattrs);
  xattrs.delete("security.capability");
  const mode = (inode.mode & S_IFMT) | permissions;
  return {
    ...inode,
    mode,
    uid: link.uid,
    gid: link.gid,
    mtimeSec: link.mtimeSec,
    mtimeNsec: link.mtimeNsec,
    xattrs: withAcls(xattrs, keptXattrs(link, mode), mode),
  };
}

/**
 * The xattrs that containerd would have set: never `trusted.` (they could forge overlayfs's own
 * marks), `user.` on files and directories only (the kernel refuses others), no namespace that the
 * kernel has no handler for. Sorted, so that equal layers give equal metadata.
 */
function keptXattrs(entry: TarEntry, mode: number): ReadonlyMap<string, Uint8Array> {
  if (entry.xattrs.size === 0) return entry.xattrs;
  const kept = new Map<string, Uint8Array>();
  for (const name of [...entry.xattrs.keys()].sort()) {
    const value = entry.xattrs.get(name);
    if (value === undefined || !isXattrKept(name, mode)) continue;
    if (name.startsWith("system.posix_acl_") && !isAcl(value)) {
      throw entryError(entry, `malformed ${name}`);
    }
    kept.set(name, value);
  }
  return kept;
}

function isXattrKept(name: string, mode: number): boolean {
  if (name.startsWith("user.")) {
    return name.length > 5 && (isRegularFile(mode) || isDirectory(mode));
  }
  if (name.startsWith("security.")) return name.length > 9;
  if (name === ACCESS_ACL_XATTR) return !isSymlink(mode);
  return name === DEFAULT_ACL_XATTR && isDirectory(mode);
}

export function toData(entry: TarEntry, type: Exclude<TarEntryType, "hard-link">): ErofsData {
  if (type === "symlink") {
    if (entry.linkPath === "" || entry.linkPath.length >= TAR_PATH_BYTES_MAX) {
      throw entryError(entry, `symlink target of ${entry.linkPath.length} bytes`);
    }
    return { kind: "inline", bytes: Buffer.from(entry.linkPath, "latin1") };
  }
  if (type !== "file" || entry.size === 0) return { kind: "none" };
  return { kind: "extents", size: entry.size, extents: toExtents(entry) };
}

/**
 * EROFS addresses the tar in place, in units of 512. GNU tar's sparse segments always end on such
 * a boundary or at the end of the file (measured, all three formats); others are refused.
 */
function toExtents(entry: TarEntry): ErofsExtent[] {
  const segments = entry.sparse ?? [{ fileOffset: 0, length: entry.size }];
  const extents: ErofsExtent[] = [];
  let deviceOffset = entry.dataOffset;
  for (const { fileOffset, length } of segments) {
    const isLast = fileOffset + length === entry.size;
    if (!isBlockAligned(fileOffset) || !isBlockAligned(deviceOffset)) {
      throw entryError(entry, `sparse segment at ${fileOffset} is not 512-aligned`);
    }
    if (!isLast && !isBlockAligned(length)) {
      throw entryError(entry, `sparse segment of ${length} bytes is not 512-aligned`);
    }
    extents.push({ fileOffset, length, device: LAYER_DEVICE, deviceOffset });
    deviceOffset += length;
  }
  return extents;
}

export function entryError(entry: TarEntry, rule: string): Error {
  return tarError(rule, { path: entry.path, offset: entry.headerOffset });
}

function checkOwner(entry: TarEntry): void {
  const isSound =
    entry.uid >= 0 && entry.uid <= OWNER_ID_MAX && entry.gid >= 0 && entry.gid <= OWNER_ID_MAX;
  if (!isSound) throw entryError(entry, `owner ${entry.uid}:${entry.gid} is out of range`);
}

function isDeviceNumber(entry: TarEntry): boolean {
  const { rdevMajor: major, rdevMinor: minor } = entry;
  return major >= 0 && major <= RDEV_MAJOR_MAX && minor >= 0 && minor <= RDEV_MINOR_MAX;
}
