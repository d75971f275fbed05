/** One comparable description of a tree: of writer input, an image, a mounted directory. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import {
  type ErofsInodeInput,
  FILE_TYPE,
  FILE_TYPE_MASK,
  isDirectoryMode,
  piecesOf,
  type ErofsAttributes,
  type ErofsData,
  type ErofsReader,
} from "../../../src/erofs/index.ts";

export interface ManifestEntry {
  /** Byte string, "" for the root, "/a/b" below it. */
  readonly path: string;
  /** The first path (in order) of the same inode: hard links. */
  readonly identity: string;
  readonly mode: string;
  readonly owner: string;
  readonly mtime: string;
  readonly rdev: string;
  readonly nlink: number;
  /** Of files and symlinks. */
  readonly size: number;
  readonly xattrs: Readonly<Record<string, string>>;
  /** Symlink target or sha256 of a file's bytes. */
  readonly content: string;
}

/** Contents of the data devices, first device first. */
export type Devices = readonly Buffer[];

export function xattrsRecord(xattrs: ReadonlyMap<string, Uint8Array>): Record<string, string> {
  const record: Record<string, string> = {};
  for (const name of [...xattrs.keys()].sort()) {
    record[name] = Buffer.from(xattrs.get(name) ?? []).toString("hex");
  }
  return record;
}

export function describeAttributes(
  attributes: ErofsAttributes,
): Pick<ManifestEntry, "mode" | "owner" | "mtime" | "rdev" | "xattrs"> {
  return {
    mode: attributes.mode.toString(8),
    owner: `${attributes.uid}:${attributes.gid}`,
    mtime: `${attributes.mtimeSec}.${attributes.mtimeNsec.toString().padStart(9, "0")}`,
    rdev: `${attributes.rdevMajor}:${attributes.rdevMinor}`,
    xattrs: xattrsRecord(attributes.xattrs),
  };
}

/** Names that the kernel takes from a file of the type (all of "user." on special files: none). */
function kept(attributes: ErofsAttributes): ErofsAttributes {
  const type = attributes.mode & FILE_TYPE_MASK;
  if (type === FILE_TYPE.regular || type === FILE_TYPE.directory) return attributes;
  const xattrs = [...attributes.xattrs].filter(([name]) => !name.startsWith("user."));
  return { ...attributes, xattrs: new Map(xattrs) };
}

export function contentOf(mode: number, data: ErofsData, devices: Devices): string {
  const type = mode & FILE_TYPE_MASK;
  if (type !== FILE_TYPE.regular && type !== FILE_TYPE.symlink) return "";
  const bytes = bytesOf(data, devices);
  return type === FILE_TYPE.symlink
    ? bytes.toString("latin1")
    : createHash("sha256").update(bytes).digest("hex");
}

export function sizeOf(data: ErofsData): number {
  if (data.kind === "none") return 0;
  return data.kind === "inline" ? data.bytes.length : data.size;
}

export function bytesOf(data: ErofsData, devices: Devices): Buffer {
  const parts = piecesOf(data, { start: 0, end: sizeOf(data) }).map((piece) => {
    if (piece.kind === "zeros") return Buffer.alloc(piece.length);
    if (piece.kind === "bytes") return piece.bytes;
    const start = piece.deviceOffset;
    return devices[piece.device - 1]?.subarray(start, start + piece.length) ?? Buffer.alloc(0);
  });
  return Buffer.concat(parts);
}

/** What the writer was given; link counts by counting names. */
export function describeTree(root: ErofsInodeInput, devices: Devices): ManifestEntry[] {
  const names = new Map<ErofsInodeInput, string[]>();
  const visit = (inode: ErofsInodeInput, path: string): void => {
    const paths = names.get(inode) ?? [];
    names.set(inode, [...paths, path]);
    for (const [name, child] of inode.entries ?? []) visit(child, `${path}/${name}`);
  };
  visit(root, "");
  const entries: ManifestEntry[] = [];
  for (const [inode, paths] of names) {
    const isDirectory = isDirectoryMode(inode.attributes.mode);
    const subdirectories = [...(inode.entries?.values() ?? [])].filter((child) => child.entries);
    const links = isDirectory ? 2 + subdirectories.length : paths.length;
    for (const path of paths) {
      entries.push({
        path,
        identity: [...paths].sort()[0] ?? "",
        ...describeAttributes(kept(inode.attributes)),
        nlink: inode.nlink ?? links,
        size: isDirectory ? 0 : sizeOf(inode.data),
        content: contentOf(inode.attributes.mode, inode.data, devices),
      });
    }
  }
  // As in withIdentities, so that equal entries are equal as JSON too.
  return sortEntries(entries).map(inOrder);
}

function inOrder(entry: ManifestEntry): ManifestEntry {
  const { path, identity, mode, owner, mtime, rdev, nlink, size, xattrs, content } = entry;
  return { path, identity, mode, owner, mtime, rdev, nlink, size, xattrs, content };
}

/** As assert.deepEqual, many times faster for large trees that are equal. */
export function assertSameTree(
  found: readonly ManifestEntry[],
  expected: readonly ManifestEntry[],
): void {
  for (const [index, entry] of expected.entries()) {
    const other = found[index];
    if (JSON.stringify(other) !== JSON.stringify(entry)) assert.deepEqual(other, entry);
  }
  assert.equal(found.length, expected.length);
}

/** What an image says. */
export function describeImage(reader: ErofsReader, devices: Devices): ManifestEntry[] {
  const entries: (ManifestEntry & { nid: number })[] = [];
  const visit = (nid: number, path: string): void => {
    const inode = reader.inode(nid);
    const isDirectory = isDirectoryMode(inode.mode);
    entries.push({
      nid,
      path,
      identity: "",
      ...describeAttributes({ ...inode, xattrs: reader.xattrs(inode) }),
      nlink: inode.nlink,
      size: isDirectory ? 0 : inode.size,
      content: contentOf(inode.mode, reader.data(inode), devices),
    });
    if (!isDirectory) return;
    for (const dirent of reader.readDir(inode)) visit(dirent.nid, `${path}/${dirent.name}`);
  };
  visit(reader.rootNid, "");
  return withIdentities(entries, (entry) => entry.nid);
}

export function withIdentities<T extends ManifestEntry>(
  entries: readonly T[],
  keyOf: (entry: T) => number | bigint,
): ManifestEntry[] {
  const first = new Map<number | bigint, string>();
  const sorted = sortEntries(entries);
  for (const entry of sorted) {
    if (!first.has(keyOf(entry))) first.set(keyOf(entry), entry.path);
  }
  return sorted.map((entry) => {
    return inOrder({ ...entry, identity: first.get(keyOf(entry)) ?? "" });
  });
}

function sortEntries<T extends ManifestEntry>(entries: readonly T[]): T[] {
  return [...entries].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}
