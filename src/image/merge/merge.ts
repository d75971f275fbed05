/**
 * Merges the metadata of layers into one, so that the mounted result shows what kernel overlayfs
 * shows of the same layers unpacked:
 *
 * - a directory over directories is one, with the attributes of the topmost and, as overlayfs
 *   reports it, a link count of 1; one that is not merged keeps the count of its layer;
 * - anything else hides what is below it; a whiteout (character device 0:0) hides and vanishes;
 * - an opaque directory takes nothing from below; the mark vanishes. On the root it means
 *   nothing: overlayfs stacks the roots of its layers whatever their marks;
 * - names of one inode stay names of one inode, and its link count stays that of its layer, also
 *   where other layers hide some of the names;
 * - a directory that a layer only names as a parent has the attributes that containerd's unpacker
 *   gives it: those of the same path in the topmost layer below that has it, 0755 of root where
 *   that is no directory (pkg/archive/tar.go: mkparent, which minds no whiteout or opaque mark);
 * - redirects and metadata-only copies, which overlayfs keeps in xattrs of its own and no image
 *   format knows, are not followed.
 *
 * A whiteout that hides nothing is absent here; overlayfs lists such a name in a directory that
 * is not merged, but cannot open it.
 */
import { DaemonError, errorCode, withContext } from "../../base/errors.ts";
import {
  defaultDirectory,
  ErofsInodeInput,
  isDirectoryMode,
  writeErofs,
  type ErofsAttributes,
  type ErofsData,
  type ErofsDirent,
  type ErofsInode,
  type ErofsReader,
} from "../../erofs/index.ts";
import { IMPLICIT_ROOT_XATTR, IMPLICIT_XATTR, isOpaque, isWhiteout, shownXattrs } from "./marks.ts";

/** overlayfs takes no more lower layers (`OVL_MAX_STACK`). */
export const MERGE_LAYERS_MAX = 500;
/** Names, extents and xattrs of all layers together: what we hold in memory at once. */
export const MERGE_ITEMS_MAX = 8_000_000;
/** No item takes less of an image than the id of a shared xattr; so many must be made up. */
const ITEM_BYTES_MIN = 4;
/** Searches for the attributes of directories that a layer only names. */
export const MERGE_LOOKUPS_MAX = 16_000_000;
/** Half of PATH_MAX: deeper trees cannot be unpacked, nor their files opened by a path. */
export const MERGE_DEPTH_MAX = 2048;
/** Values of xattrs of all layers together. */
export const MERGE_XATTR_BYTES_MAX = 256 * 1024 * 1024;

/**
 * The merged metadata of `layers`, bottom first; device n is the data of the n-th of them.
 * Throws `data-loss` for layers that do not hold together.
 */
export function mergeLayers(layers: readonly ErofsReader[]): Buffer {
  if (layers.length === 0 || layers.length > MERGE_LAYERS_MAX) {
    throw new DaemonError("invalid-argument", `${layers.length} layers to merge`);
  }
  const imageBytes = layers.reduce((sum, reader) => sum + reader.superblock.imageBytes, 0);
  const budget = new Budget(imageBytes);
  const sources = layers.map((reader, index) => new LayerSource(reader, index, budget));
  const devices = sources.map((source) => ({ bytes: source.deviceBytes }));
  try {
    return writeErofs(new Merge(sources).run(), { devices });
  } catch (error) {
    // What the writer refuses came from a layer.
    const code = errorCode(error) === "invalid-argument" ? "data-loss" : undefined;
    throw withContext(error, `cannot merge ${layers.length} layers`, code);
  }
}

class Budget {
  #items: number;
  #lookups = MERGE_LOOKUPS_MAX;
  #xattrBytes = MERGE_XATTR_BYTES_MAX;

  constructor(imageBytes: number) {
    this.#items = Math.min(MERGE_ITEMS_MAX, imageBytes / ITEM_BYTES_MIN);
  }

  takeItems(count: number): void {
    this.#items -= count;
    if (this.#items < 0) {
      throw new DaemonError("data-loss", "layers hold more items than they have room for");
    }
  }

  takeLookup(): void {
    this.#lookups -= 1;
    if (this.#lookups < 0) {
      throw new DaemonError("data-loss", `layers need more than ${MERGE_LOOKUPS_MAX} searches`);
    }
  }

  takeXattrs(xattrs: ReadonlyMap<string, Uint8Array>): void {
    this.takeItems(xattrs.size);
    for (const value of xattrs.values()) this.#xattrBytes -= value.length;
    if (this.#xattrBytes < 0) {
      throw new DaemonError("data-loss", `xattrs exceed ${MERGE_XATTR_BYTES_MAX} bytes`);
    }
  }
}

/** One layer: reads it, moves its data to its device, keeps the identity of its inodes. */
class LayerSource {
  readonly reader: ErofsReader;
  readonly deviceBytes: number;
  /** 0 is the bottom layer. */
  readonly index: number;
  readonly #budget: Budget;
  readonly #files = new Map<number, ErofsInodeInput>();
  readonly #entered = new Set<number>();

  constructor(reader: ErofsReader, index: number, budget: Budget) {
    const [bytes = 0, ...others] = reader.deviceBytes;
    if (others.length > 0) {
      throw new DaemonError("data-loss", `layer ${index} has more than one data device`);
    }
    this.reader = reader;
    this.deviceBytes = bytes;
    this.index = index;
    this.#budget = budget;
  }

  /** A directory is entered once: a tree that is none ends here, not in a loop. */
  readDir(inode: ErofsInode): ErofsDirent[] {
    if (this.#entered.has(inode.nid)) {
      throw new DaemonError("data-loss", `layer ${this.index}: directory in two places`);
    }
    this.#entered.add(inode.nid);
    const dirents = this.reader.readDir(inode);
    this.#budget.takeItems(dirents.length);
    return dirents;
  }

  xattrs(inode: ErofsInode): ReadonlyMap<string, Uint8Array> {
    const xattrs = this.reader.xattrs(inode);
    this.#budget.takeXattrs(xattrs);
    return xattrs;
  }

  file(inode: ErofsInode): ErofsInodeInput {
    const known = this.#files.get(inode.nid);
    if (known !== undefined) return known;
    const attributes = attributesOf(inode, this.xattrs(inode));
    const file = new ErofsInodeInput(attributes, { data: this.#data(inode), nlink: inode.nlink });
    this.#files.set(inode.nid, file);
    return file;
  }

  root(): ErofsInode {
    return this.reader.inode(this.reader.rootNid);
  }

  lookup(directory: ErofsInode, name: string): ErofsInode | undefined {
    this.#budget.takeLookup();
    const nid = this.reader.lookup(directory, name);
    return nid === undefined ? undefined : this.reader.inode(nid);
  }

  #data(inode: ErofsInode): ErofsData {
    const data = this.reader.data(inode);
    if (data.kind !== "extents") return data;
    this.#budget.takeItems(data.extents.length);
    const device = this.index + 1;
    const extents = data.extents.map(({ fileOffset, length, deviceOffset }) => {
      return { fileOffset, length, device, deviceOffset };
    });
    return { kind: "extents", size: data.size, extents };
  }
}

/** One layer's part in a directory. */
interface DirectoryPart {
  readonly source: LayerSource;
  readonly inode: ErofsInode;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

/** A merged directory still to be filled. */
interface Pending {
  readonly name: string;
  readonly parent: Pending | undefined;
  readonly depth: number;
  /** What single layers have under its path, as far as somebody asked. */
  readonly alone: Map<LayerSource, ErofsInode | undefined>;
  readonly node: ErofsInodeInput;
  /** Topmost layer first. */
  readonly parts: readonly DirectoryPart[];
}

/** What is known of one name while the layers are gone through from the top. */
interface NameState {
  /** A file that was found; then the name is settled. */
  file: ErofsInodeInput | undefined;
  readonly parts: DirectoryPart[];
  isSettled: boolean;
}

class Merge {
  /** Bottom first. */
  readonly #sources: readonly LayerSource[];
  readonly #pending: Pending[] = [];

  constructor(sources: readonly LayerSource[]) {
    this.#sources = sources;
  }

  run(): ErofsInodeInput {
    const parts = this.#sources.toReversed().map((source) => rootOf(source));
    const described = parts.find((part) => !part.xattrs.has(IMPLICIT_ROOT_XATTR));
    const attributes =
      described === undefined
        ? defaultDirectory()
        : attributesOf(described.inode, described.xattrs);
    const root = new ErofsInodeInput(attributes, { nlink: linksOf(parts) });
    const alone = new Map<LayerSource, ErofsInode | undefined>();
    this.#pending.push({ name: "", parent: undefined, depth: 0, alone, node: root, parts });
    for (;;) {
      const next = this.#pending.pop();
      if (next === undefined) return root;
      this.#fill(next);
    }
  }

  #fill(directory: Pending): void {
    const depth = directory.depth + 1;
    if (depth > MERGE_DEPTH_MAX) {
      throw new DaemonError("data-loss", `directories nested more than ${MERGE_DEPTH_MAX} deep`);
    }
    const names = new Map<string, NameState>();
    for (const part of directory.parts) {
      for (const dirent of part.source.readDir(part.inode)) visit(names, part.source, dirent);
    }
    for (const [name, { file, parts }] of names) {
      if (file !== undefined) directory.node.entries?.set(name, file);
      const [top] = parts;
      if (top === undefined) continue;
      const attributes = this.#directoryAttributes(top, directory, name);
      const node = new ErofsInodeInput(attributes, { nlink: linksOf(parts) });
      directory.node.entries?.set(name, node);
      this.#pending.push({ name, parent: directory, depth, alone: new Map(), node, parts });
    }
  }

  #directoryAttributes(top: DirectoryPart, parent: Pending, name: string): ErofsAttributes {
    if (!top.xattrs.has(IMPLICIT_XATTR)) return attributesOf(top.inode, top.xattrs);
    for (let index = top.source.index - 1; index >= 0; index -= 1) {
      const source = this.#sources[index];
      const inode = source === undefined ? undefined : childAlone(parent, source, name);
      if (source === undefined || inode === undefined) continue;
      if (!isDirectoryMode(inode.mode)) break;
      const xattrs = source.xattrs(inode);
      if (!xattrs.has(IMPLICIT_XATTR)) return attributesOf(inode, untrusted(xattrs));
    }
    return defaultDirectory();
  }
}

function rootOf(source: LayerSource): DirectoryPart {
  const inode = source.root();
  if (!isDirectoryMode(inode.mode)) {
    throw new DaemonError("data-loss", "the root of a layer is not a directory");
  }
  return { source, inode, xattrs: source.xattrs(inode) };
}

/** What a layer, for itself, has under a merged directory's path; symlinks are not followed. */
function inodeAlone(directory: Pending, source: LayerSource): ErofsInode | undefined {
  if (directory.alone.has(source)) return directory.alone.get(source);
  const { parent, name } = directory;
  const inode = parent === undefined ? source.root() : childAlone(parent, source, name);
  directory.alone.set(source, inode);
  return inode;
}

/** A file in a parent's place stands for everything below it. */
function childAlone(directory: Pending, source: LayerSource, name: string): ErofsInode | undefined {
  const parent = inodeAlone(directory, source);
  if (parent === undefined || !isDirectoryMode(parent.mode)) return parent;
  return source.lookup(parent, name);
}

/** containerd's unpacker copies no trusted xattrs to a parent that it makes. */
function untrusted(xattrs: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, Uint8Array> {
  return new Map([...xattrs].filter(([name]) => !name.startsWith("trusted.")));
}

function visit(names: Map<string, NameState>, source: LayerSource, dirent: ErofsDirent): void {
  let state = names.get(dirent.name);
  if (state?.isSettled === true) return;
  const inode = source.reader.inode(dirent.nid);
  if (state === undefined) {
    state = { file: undefined, parts: [], isSettled: false };
    names.set(dirent.name, state);
  }
  if (isDirectoryMode(inode.mode)) {
    const xattrs = source.xattrs(inode);
    state.parts.push({ source, inode, xattrs });
    state.isSettled = isOpaque(xattrs);
    return;
  }
  // Below a directory, a file or whiteout only ends the stack.
  state.isSettled = true;
  if (state.parts.length === 0 && !isWhiteout(inode)) state.file = source.file(inode);
}

/** overlayfs reports 1 for a merged directory, the layer's own count for any other. */
function linksOf(parts: readonly DirectoryPart[]): number {
  return parts.length > 1 ? 1 : (parts[0]?.inode.nlink ?? 1);
}

function attributesOf(inode: ErofsInode, xattrs: ReadonlyMap<string, Uint8Array>): ErofsAttributes {
  const { mode, uid, gid, mtimeSec, mtimeNsec, rdevMajor, rdevMinor } = inode;
  const shown = shownXattrs(xattrs);
  return { mode, uid, gid, mtimeSec, mtimeNsec, rdevMajor, rdevMinor, xattrs: shown };
}
