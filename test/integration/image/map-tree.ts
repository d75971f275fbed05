/** The tree that a layer map (or a merge of several) describes, in the form of the lab's walker. */
import { createHash } from "node:crypto";
import {
  FILE_TYPE,
  FILE_TYPE_MASK,
  type ErofsData,
  type ErofsReader,
} from "../../../src/erofs/index.ts";
import type { TreeEntry, TreeManifest } from "../../support/lab/index.ts";

const KINDS: ReadonlyMap<number, string> = new Map([
  [FILE_TYPE.regular, "f"],
  [FILE_TYPE.directory, "d"],
  [FILE_TYPE.symlink, "l"],
  [FILE_TYPE.characterDevice, "c"],
  [FILE_TYPE.blockDevice, "b"],
  [FILE_TYPE.fifo, "p"],
]);

/** `tars[n]` is the data of device n + 1. */
export function treeOf(reader: ErofsReader, tars: readonly Buffer[]): TreeManifest {
  const manifest = new Map<string, TreeEntry>();
  const firstPaths = new Map<number, string>();
  const visit = (nid: number, path: string): void => {
    const inode = reader.inode(nid);
    const kind = KINDS.get(inode.mode & FILE_TYPE_MASK) ?? "?";
    const isFolder = kind === "d";
    if (!firstPaths.has(nid)) firstPaths.set(nid, path);
    manifest.set(path, {
      type: kind,
      mode: (inode.mode & 0o7777).toString(8).padStart(4, "0"),
      uid: String(inode.uid),
      gid: String(inode.gid),
      size: kind === "f" || kind === "l" ? String(inode.size) : "-",
      nlink: isFolder ? "-" : String(inode.nlink),
      group: !isFolder && inode.nlink > 1 ? (firstPaths.get(nid) ?? "") : "-",
      rdev: kind === "c" || kind === "b" ? `${inode.rdevMajor}:${inode.rdevMinor}` : "-",
      mtime: `${inode.mtimeSec}.${String(inode.mtimeNsec).padStart(9, "0")}`,
      xattrs: xattrsText(reader.xattrs(inode)),
      target: kind === "l" ? escape(reader.readlink(inode)) : "-",
      sha256: kind === "f" ? digest(reader.data(inode), tars) : "-",
    });
    if (!isFolder) return;
    const entries = reader.readDir(inode);
    const order = entries.map((entry) => entry.name).sort();
    const nids = new Map(entries.map((entry) => [entry.name, entry.nid]));
    for (const name of order) visit(nids.get(name) ?? 0, `${path}/${escape(name)}`);
  };
  visit(reader.rootNid, ".");
  return manifest;
}

function xattrsText(xattrs: ReadonlyMap<string, Uint8Array>): string {
  const names = [...xattrs.keys()].sort();
  if (names.length === 0) return "-";
  return names
    .map((name) => `${escape(name)}=${Buffer.from(xattrs.get(name) ?? []).toString("hex")}`)
    .join(",");
}

function digest(data: ErofsData, tars: readonly Buffer[]): string {
  const hash = createHash("sha256");
  if (data.kind === "inline") hash.update(data.bytes);
  if (data.kind === "extents") {
    const bytes = Buffer.alloc(data.size);
    for (const { fileOffset, length, device, deviceOffset } of data.extents) {
      const tar = tars[device - 1];
      const end = deviceOffset + Math.min(length, data.size - fileOffset);
      tar?.copy(bytes, fileOffset, deviceOffset, end);
    }
    hash.update(bytes);
  }
  return hash.digest("hex");
}

/** As tree-walk.c writes bytes. */
function escape(bytes: string): string {
  return bytes.replace(/[^!-[\]-~]/g, (char) => {
    return `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`;
  });
}
