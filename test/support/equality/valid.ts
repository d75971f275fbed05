/**
 * Keeps of a generated layer what containerd's unpacking accepts, so that every image is one that
 * somebody can run. The rules are those of one layer; see docs/equality.md for what is left out.
 */
import type { Entry } from "./image.ts";

/** What the layer has under a path so far. */
type Present = "dir" | "leaf" | "symlink" | "whiteout";

/** With the paths as the layer names them, and the targets of hard links. */
export interface ValidEntry {
  readonly entry: Entry;
  readonly name: string;
  readonly linkTarget: string;
}

const NAME_BYTES_MAX = 255;
const WHITEOUT_PREFIX = ".wh.";

/** For each layer, bottom first, the entries that it keeps. */
export function validLayers(layers: readonly (readonly Entry[])[]): ValidEntry[][] {
  const below: ReadonlyMap<string, Present>[] = [];
  const setgid = new Set<string>();
  return layers.map((entries) => {
    const state = new LayerState([...below], setgid);
    const kept = entries.flatMap((entry) => state.accept(entry) ?? []);
    below.push(state.present);
    return kept;
  });
}

class LayerState {
  readonly #present = new Map<string, Present>();
  readonly #below: readonly ReadonlyMap<string, Present>[];
  /** What is only named below a set-group-ID folder inherits that: docs/equality.md, open. */
  readonly #setgid: Set<string>;
  readonly #described = new Set<string>();

  constructor(below: readonly ReadonlyMap<string, Present>[], setgid: Set<string>) {
    this.#below = below;
    this.#setgid = setgid;
  }

  get present(): ReadonlyMap<string, Present> {
    return this.#present;
  }

  accept(entry: Entry): ValidEntry | undefined {
    if (entry.kind === "root") return { entry, name: "./", linkTarget: "" };
    // containerd applies the lowest layer to a plain folder: docs/equality.md, open.
    if (entry.kind === "opaque" && this.#below.length === 0) return undefined;
    const parents = entry.kind === "opaque" ? entry.path : entry.path.slice(0, -1);
    if (!this.#haveRoom(parents)) return undefined;
    const linkTarget = this.#linkTarget(entry);
    if (linkTarget === undefined || !this.#fits(entry)) return undefined;
    this.#addParents(parents);
    if (entry.kind === "dir" && (entry.attributes.mode & 0o2000) !== 0) {
      this.#setgid.add(entry.path.join("/"));
    }
    if (entry.kind !== "opaque") this.#described.add(entry.path.join("/"));
    if (entry.kind !== "opaque") this.#present.set(entry.path.join("/"), presentOf(entry));
    return { entry, name: tarName(entry), linkTarget };
  }

  /** A parent is a folder or can become one. Ways through symlinks are other tests' subject. */
  #haveRoom(parents: readonly string[]): boolean {
    return parents.every((_name, index) => {
      const present = this.#present.get(parents.slice(0, index + 1).join("/"));
      return present === undefined
        ? this.#canBeNamed(parents.slice(0, index + 1))
        : present === "dir";
    });
  }

  /**
   * A folder that the layer only names gets the attributes of the lower layers' one, whose path
   * containerd's mkparent must be able to walk: through a file or a circle of symlinks it fails.
   */
  #canBeNamed(folder: readonly string[]): boolean {
    return folder.every((_name, index) => {
      const path = folder.slice(0, index + 1).join("/");
      if (this.#setgid.has(path)) return false;
      const isLast = index === folder.length - 1;
      return this.#below.every((layer) => {
        const present = layer.get(path) ?? "dir";
        return present === "dir" || (isLast && present !== "symlink");
      });
    });
  }

  #addParents(parents: readonly string[]): void {
    for (const index of parents.keys()) {
      this.#present.set(parents.slice(0, index + 1).join("/"), "dir");
    }
  }

  #fits(entry: Entry): boolean {
    const present = this.#present.get(entry.path.join("/"));
    if (entry.kind === "whiteout") {
      const name = entry.path.at(-1) ?? "";
      return present === undefined && name.length + WHITEOUT_PREFIX.length <= NAME_BYTES_MAX;
    }
    if (entry.kind === "opaque") return true;
    // Named first and described later, it keeps lower layers' xattrs: docs/equality.md, open.
    if (present === "dir" && !this.#described.has(entry.path.join("/"))) return false;
    // A described folder that the same layer replaces gives its time to what replaces it.
    return present !== "dir" || entry.kind === "dir" || entry.kind === "crowd";
  }

  /** Empty where none is needed, undefined where there is none. */
  #linkTarget(entry: Entry): string | undefined {
    if (entry.kind !== "link") return "";
    const own = entry.path.join("/");
    const targets = [...this.#present].flatMap(([path, present]) =>
      (present === "leaf" || present === "symlink") && path !== own ? [path] : [],
    );
    return targets[entry.choice % Math.max(1, targets.length)];
  }
}

function presentOf(entry: Entry): Present {
  if (entry.kind === "dir" || entry.kind === "crowd") return "dir";
  if (entry.kind === "symlink") return "symlink";
  // A character device 0:0 is overlayfs's own whiteout.
  const isWhiteout = entry.kind === "char" && entry.major === 0 && entry.minor === 0;
  return entry.kind === "whiteout" || isWhiteout ? "whiteout" : "leaf";
}

function tarName(entry: Entry): string {
  const parent = entry.path.slice(0, -1);
  if (entry.kind === "whiteout") {
    return [...parent, `${WHITEOUT_PREFIX}${entry.path.at(-1) ?? ""}`].join("/");
  }
  if (entry.kind === "opaque") return [...entry.path, ".wh..wh..opq"].join("/");
  return entry.path.join("/");
}
