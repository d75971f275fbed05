/**
 * Keeps of a generated layer what containerd's unpacking accepts, so that every image is one that
 * somebody can run. The rules are those of one layer; see docs/equality.md for what is left out.
 */
import type { Entry } from "./image.ts";

/** What a layer has under a path so far. */
interface Present {
  readonly kind: "dir" | "leaf" | "symlink" | "whiteout";
  /** Of a symlink. */
  readonly target?: string;
}
type Paths = ReadonlyMap<string, Present>;

/** With the paths as the layer names them, and the targets of hard links. */
export interface ValidEntry {
  readonly entry: Entry;
  readonly name: string;
  readonly linkTarget: string;
}

const NAME_BYTES_MAX = 255;
const WHITEOUT_PREFIX = ".wh.";
const DEFAULT_ACL_XATTR = "system.posix_acl_default";

/** For each layer, bottom first, the entries that it keeps. */
export function validLayers(layers: readonly (readonly Entry[])[]): ValidEntry[][] {
  const below: Paths[] = [];
  const withDefaultAcl = new Set<string>();
  return layers.map((entries) => {
    const state = new LayerState([...below], withDefaultAcl);
    const kept = entries.flatMap((entry) => state.accept(entry) ?? []);
    below.push(state.present);
    return kept;
  });
}

class LayerState {
  readonly #present = new Map<string, Present>();
  readonly #below: readonly Paths[];
  /** Children inherit such an ACL while containerd unpacks: these folders get none. */
  readonly #withDefaultAcl: Set<string>;
  readonly #described = new Set<string>();
  /** Symlinks that paths of the layer lead through: they stay as they are. */
  readonly #ways = new Set<string>();

  constructor(below: readonly Paths[], withDefaultAcl: Set<string>) {
    this.#below = below;
    this.#withDefaultAcl = withDefaultAcl;
  }

  get present(): Paths {
    return this.#present;
  }

  accept(entry: Entry): ValidEntry | undefined {
    if (entry.kind === "root") return { entry, name: "./", linkTarget: "" };
    const folder = resolve(
      this.#present,
      entry.kind === "opaque" ? entry.path : entry.path.slice(0, -1),
    );
    if (folder === undefined || !this.#haveRoom(folder.parts)) return undefined;
    const parts = entry.kind === "opaque" ? folder.parts : [...folder.parts, ...lastOf(entry)];
    const path = parts.join("/");
    const linkTarget = this.#linkTarget(entry, path);
    if (linkTarget === undefined || !this.#fits(entry, path)) return undefined;
    for (const way of folder.ways) this.#ways.add(way);
    for (const index of folder.parts.keys()) {
      this.#present.set(folder.parts.slice(0, index + 1).join("/"), { kind: "dir" });
    }
    if (entry.kind !== "opaque") {
      this.#described.add(path);
      this.#present.set(path, this.#present.get(linkTarget) ?? presentOf(entry));
    }
    if (hasDefaultAcl(entry)) this.#withDefaultAcl.add(path);
    return { entry, name: tarName(entry), linkTarget };
  }

  /** Each folder of the path is one or can become one, and none is closed to children. */
  #haveRoom(parts: readonly string[]): boolean {
    return parts.every((_name, index) => {
      const folder = parts.slice(0, index + 1);
      const path = folder.join("/");
      if (this.#withDefaultAcl.has(path)) return false;
      const present = this.#present.get(path);
      return present === undefined ? this.#canBeNamed(folder) : present.kind === "dir";
    });
  }

  /**
   * A folder that the layer only names gets the attributes of the lower layers' one, whose path
   * containerd's mkparent must be able to walk: through a file or a circle of symlinks it fails.
   */
  #canBeNamed(folder: readonly string[]): boolean {
    return this.#below.every((layer) => {
      const found = resolve(layer, folder);
      if (found === undefined || this.#withDefaultAcl.has(found.parts.join("/"))) return false;
      return found.parts.slice(0, -1).every((_name, index) => {
        const present = layer.get(found.parts.slice(0, index + 1).join("/"));
        return present === undefined || present.kind === "dir";
      });
    });
  }

  #fits(entry: Entry, path: string): boolean {
    if (entry.kind === "opaque") return this.#below.length > 0 || this.#isAllDescribed(path);
    if (this.#ways.has(path)) return false;
    const present = this.#present.get(path);
    if (entry.kind === "whiteout") {
      const name = entry.path.at(-1) ?? "";
      return present === undefined && name.length + WHITEOUT_PREFIX.length <= NAME_BYTES_MAX;
    }
    // A described folder that the same layer replaces gives its time to what replaces it.
    return present?.kind !== "dir" || entry.kind === "dir" || entry.kind === "crowd";
  }

  /**
   * In the lowest layer containerd takes an opaque mark as an order to remove what was not
   * described so far: folders that were only named, with all they hold (docs/equality.md).
   */
  #isAllDescribed(folder: string): boolean {
    const prefix = folder === "" ? "" : `${folder}/`;
    return [...this.#present.keys()].every(
      (path) => !path.startsWith(prefix) || this.#described.has(path),
    );
  }

  /** Empty where none is needed, undefined where there is none. */
  #linkTarget(entry: Entry, own: string): string | undefined {
    if (entry.kind !== "link") return "";
    const targets = [...this.#present].flatMap(([path, { kind }]) =>
      (kind === "leaf" || kind === "symlink") && path !== own ? [path] : [],
    );
    return targets[entry.choice % Math.max(1, targets.length)];
  }
}

/**
 * Where a path leads in a layer, and through which symlinks. Undefined where a symlink's target
 * leads through another one: continuity's fs.RootPath takes those for links of the host.
 */
function resolve(
  layer: Paths,
  path: readonly string[],
): { readonly parts: readonly string[]; readonly ways: readonly string[] } | undefined {
  const parts: string[] = [];
  const ways: string[] = [];
  for (const name of path) {
    parts.push(name);
    const present = layer.get(parts.join("/"));
    if (present?.kind !== "symlink") continue;
    ways.push(parts.join("/"));
    parts.pop();
    const { target = "" } = present;
    if (target.startsWith("/")) parts.length = 0;
    for (const component of target.split("/")) {
      if (component === "" || component === ".") continue;
      if (component === "..") parts.pop();
      else parts.push(component);
      if (component.length > NAME_BYTES_MAX) return undefined;
      if (layer.get(parts.join("/"))?.kind === "symlink") return undefined;
    }
  }
  return { parts, ways };
}

function lastOf(entry: Entry): readonly string[] {
  return entry.path.slice(-1);
}

function hasDefaultAcl(entry: Entry): boolean {
  return (
    entry.kind === "dir" && entry.attributes.xattrs.some(([name]) => name === DEFAULT_ACL_XATTR)
  );
}

function presentOf(entry: Entry): Present {
  if (entry.kind === "dir" || entry.kind === "crowd") return { kind: "dir" };
  if (entry.kind === "symlink") return { kind: "symlink", target: entry.target };
  // A character device 0:0 is overlayfs's own whiteout.
  const isWhiteout = entry.kind === "char" && entry.major === 0 && entry.minor === 0;
  return { kind: entry.kind === "whiteout" || isWhiteout ? "whiteout" : "leaf" };
}

function tarName(entry: Entry): string {
  const parent = entry.path.slice(0, -1);
  if (entry.kind === "whiteout") {
    return [...parent, `${WHITEOUT_PREFIX}${entry.path.at(-1) ?? ""}`].join("/");
  }
  if (entry.kind === "opaque") return [...entry.path, ".wh..wh..opq"].join("/");
  return entry.path.join("/");
}
