/**
 * The attributes that a folder has in a layer unpacked by containerd. Of one that the layer names
 * as a parent before it describes it, they come from the layers below, each searched for itself,
 * whatever its whiteouts and opaque marks: pkg/archive/tar.go (mkparent), continuity's fs.RootPath.
 */
import {
  FILE_TYPE,
  FILE_TYPE_MASK,
  isDirectoryMode,
  type ErofsAttributes,
  type ErofsInode,
} from "../../erofs/index.ts";
import { withAcls } from "../acl.ts";
import { attributesOf, type DirectoryPart, type LayerSource } from "./layer-source.ts";
import { IMPLICIT, IMPLICIT_XATTR, isMark } from "./marks.ts";

/** fs.RootPath follows no more in one path. */
const SYMLINKS_WALKED_MAX = 255;
const S_ISGID = 0o2000;
const NOTHING: ReadonlyMap<string, Uint8Array> = new Map();

/** A path, and what was found out about it. */
export interface Place {
  readonly name: string;
  /** Undefined for the root. */
  readonly parent: Place | undefined;
  /** What single layers have there; a file in a parent's place stands for all below it. */
  readonly alone: Map<LayerSource, ErofsInode | undefined>;
  /** What containerd gives a folder of this path that a layer only names. */
  readonly bases: Map<LayerSource, ErofsAttributes | undefined>;
}

interface Found {
  readonly inode: ErofsInode | undefined;
  readonly place: Place;
}

export function placeIn(parent: Place | undefined, name: string): Place {
  return { name, parent, alone: new Map(), bases: new Map() };
}

export class UnpackedFolders {
  /** Bottom first. */
  readonly #sources: readonly LayerSource[];

  constructor(sources: readonly LayerSource[]) {
    this.#sources = sources;
  }

  /** With the layer's marks among the xattrs. */
  attributes({ source, inode, xattrs }: DirectoryPart, place: Place): ErofsAttributes {
    const own = attributesOf(inode, xattrs);
    const mark = xattrs.get(IMPLICIT_XATTR);
    if (mark === undefined) return own;
    const base = this.#base(source, place);
    if (isMark(mark, IMPLICIT.describedLater)) {
      return { ...own, xattrs: withAcls(base?.xattrs ?? NOTHING, xattrs, own.mode) };
    }
    if (base !== undefined) return base;
    if (!isMark(mark, IMPLICIT.inNamed) || place.parent === undefined) return own;
    const parent = this.#base(source, place.parent);
    const isInherited = parent !== undefined && (parent.mode & S_ISGID) !== 0;
    return isInherited ? { ...own, gid: parent.gid } : own;
  }

  /** Of the topmost layer below `source` that has the path, if that is a folder. */
  #base(source: LayerSource, place: Place): ErofsAttributes | undefined {
    if (place.bases.has(source)) return place.bases.get(source);
    const base = this.#findBase(source, place);
    place.bases.set(source, base);
    return base;
  }

  #findBase(source: LayerSource, place: Place): ErofsAttributes | undefined {
    for (let index = source.index - 1; index >= 0; index -= 1) {
      const below = this.#sources[index];
      const found = below === undefined ? undefined : find(place, below);
      if (below === undefined || found?.inode === undefined) continue;
      if (!isDirectoryMode(found.inode.mode)) return undefined;
      const part = { source: below, inode: found.inode, xattrs: below.xattrs(found.inode) };
      const attributes = this.attributes(part, found.place);
      return { ...attributes, xattrs: untrusted(attributes.xattrs) };
    }
    return undefined;
  }
}

function find(place: Place, source: LayerSource): Found {
  const inode = inodeAlone(place, source);
  if (inode === undefined || !isSymlink(inode)) return { inode, place };
  const names: string[] = [];
  for (let at = place; at.parent !== undefined; at = at.parent) names.push(at.name);
  return walk(source, names);
}

function inodeAlone(place: Place, source: LayerSource): ErofsInode | undefined {
  if (place.alone.has(source)) return place.alone.get(source);
  const inode = place.parent === undefined ? source.root() : childAlone(place, source);
  place.alone.set(source, inode);
  return inode;
}

function childAlone(place: Place, source: LayerSource): ErofsInode | undefined {
  const parent = place.parent === undefined ? undefined : inodeAlone(place.parent, source);
  if (parent === undefined || !isDirectoryMode(parent.mode)) return parent;
  return source.lookup(parent, place.name);
}

/** Follows the layer's symlinks, never out of its root. `names` are the path's, last one first. */
function walk(source: LayerSource, names: string[]): Found {
  const root: Found = { inode: source.root(), place: placeIn(undefined, "") };
  const nowhere: Found = { inode: undefined, place: root.place };
  const trail: Found[] = [];
  let symlinks = 0;
  for (let name = names.pop(); name !== undefined; name = names.pop()) {
    if (name === "" || name === ".") continue;
    if (name === "..") {
      trail.pop();
      continue;
    }
    const { inode: folder, place } = trail.at(-1) ?? root;
    if (folder !== undefined && !isDirectoryMode(folder.mode)) return { inode: folder, place };
    const inode = folder === undefined ? undefined : source.lookup(folder, name);
    if (inode === undefined || !isSymlink(inode)) {
      trail.push({ inode, place: placeIn(place, name) });
      continue;
    }
    symlinks += 1;
    if (symlinks > SYMLINKS_WALKED_MAX) return nowhere;
    const target = source.readlink(inode);
    if (target.startsWith("/")) trail.length = 0;
    names.push(...target.split("/").reverse());
  }
  return trail.at(-1) ?? root;
}

function isSymlink(inode: ErofsInode): boolean {
  return (inode.mode & FILE_TYPE_MASK) === FILE_TYPE.symlink;
}

/** containerd's unpacker copies no trusted xattrs to a parent that it makes. */
function untrusted(xattrs: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, Uint8Array> {
  return new Map([...xattrs].filter(([name]) => !name.startsWith("trusted.")));
}
