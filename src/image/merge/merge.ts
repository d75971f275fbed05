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
 *   gives it (`unpacked-folder.ts`);
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
  type ErofsDirent,
  type ErofsReader,
} from "../../erofs/index.ts";
import { attributesOf, Budget, LayerSource, shown, type DirectoryPart } from "./layer-source.ts";
import { IMPLICIT_ROOT_XATTR, isOpaque, isWhiteout } from "./marks.ts";
import { placeIn, UnpackedFolders, type Place } from "./unpacked-folder.ts";

/** overlayfs takes no more lower layers (`OVL_MAX_STACK`). */
export const MERGE_LAYERS_MAX = 500;
/** Half of PATH_MAX: deeper trees cannot be unpacked, nor their files opened by a path. */
export const MERGE_DEPTH_MAX = 2048;

/**
 * The merged metadata of `layers`, bottom first; device n is the data of the n-th of them.
 * Throws `data-loss` for layers that do not hold together.
 */
export function mergeLayers(layers: readonly ErofsReader[]): Buffer {
  if (layers.length === 0 || layers.length > MERGE_LAYERS_MAX) {
    throw new DaemonError("invalid-argument", `${layers.length} layers to merge`);
  }
  const imageBytes = layers.reduce((sum, reader) => sum + reader.imageBytes, 0);
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

/** A merged directory still to be filled. */
interface Pending {
  readonly place: Place;
  readonly depth: number;
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
  readonly #unpacked: UnpackedFolders;
  readonly #pending: Pending[] = [];

  constructor(sources: readonly LayerSource[]) {
    this.#sources = sources;
    this.#unpacked = new UnpackedFolders(sources);
  }

  run(): ErofsInodeInput {
    const parts = this.#sources.toReversed().map((source) => rootOf(source));
    const described = parts.find((part) => !part.xattrs.has(IMPLICIT_ROOT_XATTR));
    const attributes =
      described === undefined
        ? defaultDirectory()
        : shown(attributesOf(described.inode, described.xattrs));
    const root = new ErofsInodeInput(attributes, { nlink: linksOf(parts) });
    this.#pending.push({ place: placeIn(undefined, ""), depth: 0, node: root, parts });
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
      const place = placeIn(directory.place, name);
      const attributes = shown(this.#unpacked.attributes(top, place));
      const node = new ErofsInodeInput(attributes, { nlink: linksOf(parts) });
      directory.node.entries?.set(name, node);
      this.#pending.push({ place, depth, node, parts });
    }
  }
}

function rootOf(source: LayerSource): DirectoryPart {
  const inode = source.root();
  if (!isDirectoryMode(inode.mode)) {
    throw new DaemonError("data-loss", "the root of a layer is not a directory");
  }
  return { source, inode, xattrs: source.xattrs(inode) };
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
