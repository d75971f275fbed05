/**
 * A file tree as text, made by a process of its own (tree-walk.c), and the comparison of two. What
 * a way of mounting cannot express is masked by a named flag; nothing else is.
 */
import { createHash } from "node:crypto";
import { access, mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { labFolder, projectFolder } from "./paths.ts";
import { run } from "./process.ts";

const WALK_TIMEOUT_MS = 300_000;

let walker: Promise<string> | undefined;

/** Builds the walker once for each version of its source. */
export function treeWalker(): Promise<string> {
  walker ??= buildWalker();
  return walker;
}

async function buildWalker(): Promise<string> {
  const source = join(projectFolder, "test", "support", "lab", "tree-walk.c");
  const hash = createHash("sha256")
    .update(await readFile(source))
    .digest("hex")
    .slice(0, 12);
  const binary = join(labFolder, "bin", `tree-walk-${hash}`);
  const built = await access(binary).then(
    () => true,
    () => false,
  );
  if (built) return binary;
  await mkdir(join(labFolder, "bin"), { recursive: true });
  const partial = `${binary}.${process.pid}`;
  // libcrypto hashes with the processor's own instructions: five times faster than plain C.
  const libraries = ["-l:libcrypto.so.3"];
  await run("gcc", ["-O2", "-Wall", "-Wextra", "-Werror", "-o", partial, source, ...libraries]);
  await rename(partial, binary);
  return binary;
}

/** The names of a line's fields, in order; `path` is its key. */
export const TREE_FIELDS = [
  "type",
  "mode",
  "uid",
  "gid",
  "size",
  "nlink",
  "group",
  "rdev",
  "mtime",
  "xattrs",
  "target",
  "sha256",
] as const;
export type TreeField = (typeof TREE_FIELDS)[number];
export type TreeEntry = Readonly<Record<TreeField, string>>;
/** By path as tree-walk.c writes it: `./usr/bin/x`, odd bytes as \xHH. */
export type TreeManifest = ReadonlyMap<string, TreeEntry>;

export function parseTree(text: string): TreeManifest {
  const manifest = new Map<string, TreeEntry>();
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const [path = "", ...values] = line.split("\t");
    if (values.length !== TREE_FIELDS.length) throw new Error(`malformed line: ${line}`);
    const entry = Object.fromEntries(TREE_FIELDS.map((field, at) => [field, values[at] ?? ""]));
    manifest.set(path, entry as TreeEntry);
  }
  return manifest;
}

export interface WalkOptions {
  /** Leaves out sha256 (prints "-"): no file is read. */
  readonly content?: boolean;
}

export async function walkTreeText(folder: string, options: WalkOptions = {}): Promise<string> {
  const args = options.content === false ? ["--no-content", folder] : [folder];
  return (await run(await treeWalker(), args, { timeoutMs: WALK_TIMEOUT_MS })).stdout;
}

export async function walkTree(folder: string, options: WalkOptions = {}): Promise<TreeManifest> {
  return parseTree(await walkTreeText(folder, options));
}

export interface CompareOptions {
  /**
   * What fuse-native cannot express (docs: names that are not UTF-8, times before 1970 and below a
   * millisecond; inode numbers are not compared anyway).
   */
  readonly fuseNative?: boolean;
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

function isUtf8(path: string): boolean {
  const bytes = path.replace(/\\x([0-9a-f]{2})/g, (_all, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
  try {
    utf8.decode(Buffer.from(bytes, "latin1"));
    return true;
  } catch {
    return false;
  }
}

/** How the replacement character appears in a walk. */
const REPLACED = "\\xef\\xbf\\xbd";

function isOdd(text: string): boolean {
  return !isUtf8(text) || text.includes(REPLACED);
}

function maskFuseNative(manifest: TreeManifest): TreeManifest {
  const masked = new Map<string, TreeEntry>();
  /** By the first of all names of a file the first that both show. */
  const firstNames = new Map<string, string>();
  for (const [path, entry] of manifest) {
    if (isOdd(path)) continue;
    const [seconds = "", fraction = ""] = entry.mtime.split(".");
    // What is before 1970 is shown as 1970.
    const mtime = seconds.startsWith("-") ? "0.000" : `${seconds}.${fraction.slice(0, 3)}`;
    const { group, target } = entry;
    if (group !== "-" && !firstNames.has(group)) firstNames.set(group, path);
    masked.set(path, {
      ...entry,
      mtime,
      target: isOdd(target) ? "not UTF-8" : target,
      group: firstNames.get(group) ?? "-",
    });
  }
  return masked;
}

const DIFFERENCES_MAX = 40;

/** The differences in words, at most 40; empty when the trees are equal. */
export function compareTrees(
  expected: TreeManifest,
  actual: TreeManifest,
  options: CompareOptions = {},
): readonly string[] {
  const mask = options.fuseNative === true ? maskFuseNative : (tree: TreeManifest) => tree;
  const [left, right] = [mask(expected), mask(actual)];
  const differences: string[] = [];
  for (const [path, wanted] of left) {
    const found = right.get(path);
    if (found === undefined) {
      differences.push(`${path}: missing`);
      continue;
    }
    for (const field of TREE_FIELDS) {
      if (wanted[field] !== found[field]) {
        differences.push(`${path}: ${field} is ${found[field]}, not ${wanted[field]}`);
      }
    }
  }
  for (const path of right.keys()) if (!left.has(path)) differences.push(`${path}: not expected`);
  if (differences.length <= DIFFERENCES_MAX) return differences;
  return [
    ...differences.slice(0, DIFFERENCES_MAX),
    `and ${differences.length - DIFFERENCES_MAX} more`,
  ];
}
