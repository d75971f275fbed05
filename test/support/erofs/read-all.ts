/** Reads everything of a metadata image that can be reached from its root. */
import { FILE_TYPE, FILE_TYPE_MASK, isDirectoryMode } from "../../../src/erofs/index.ts";
import type { ErofsInode, ErofsReader } from "../../../src/erofs/index.ts";

/** A hostile image has as many inodes as its directories name. */
const INODES_MAX = 2000;
const LOOKUPS_MAX = 64;

/** Does one read; undefined where it was refused and the rest is to go on. */
export type Attempt = <T>(read: () => T) => T | undefined;

/** Each inode once, through all that a reader offers. */
export function readAll(reader: ErofsReader, attempt: Attempt): void {
  const seen = new Set<number>();
  const pending = [reader.rootNid];
  for (let nid = pending.pop(); nid !== undefined; nid = pending.pop()) {
    if (seen.has(nid) || seen.size >= INODES_MAX) continue;
    seen.add(nid);
    const current = nid;
    const inode = attempt(() => reader.inode(current));
    if (inode !== undefined) pending.push(...readInode(reader, inode, attempt));
  }
}

/** The inodes that a directory names. */
function readInode(reader: ErofsReader, inode: ErofsInode, attempt: Attempt): readonly number[] {
  attempt(() => reader.xattrs(inode));
  attempt(() => reader.data(inode));
  if ((inode.mode & FILE_TYPE_MASK) === FILE_TYPE.symlink) attempt(() => reader.readlink(inode));
  if (!isDirectoryMode(inode.mode)) return [];
  const entries = attempt(() => reader.readDir(inode)) ?? [];
  for (const { name } of entries.slice(0, LOOKUPS_MAX)) attempt(() => reader.lookup(inode, name));
  attempt(() => reader.lookup(inode, "name"));
  return entries.map(({ nid }) => nid);
}
