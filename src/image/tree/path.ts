/** Paths of archive members as lists of components; byte strings throughout. */
import { TAR_NAME_BYTES_MAX, TAR_PATH_BYTES_MAX, TREE_DEPTH_MAX } from "../limits.ts";

type PathRule = string;

/**
 * Cleans a path as containerd does (`./` and leading slashes go, `..` takes a component away), but
 * refuses one that climbs out of the root, which containerd would bend back into it.
 * The error is the broken rule.
 */
export function cleanPath(
  path: string,
): { readonly parts: readonly string[] } | { readonly rule: PathRule } {
  if (path.length > TAR_PATH_BYTES_MAX) {
    return { rule: `path of ${path.length} bytes (at most ${TAR_PATH_BYTES_MAX})` };
  }
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") {
      if (parts.pop() === undefined) return { rule: "path climbs out of the root" };
      continue;
    }
    if (part.length > TAR_NAME_BYTES_MAX) {
      return { rule: `name of ${part.length} bytes (at most ${TAR_NAME_BYTES_MAX})` };
    }
    if (part.includes("\0")) return { rule: "name with a NUL" };
    parts.push(part);
  }
  if (parts.length > TREE_DEPTH_MAX) return { rule: `path deeper than ${TREE_DEPTH_MAX}` };
  return { parts };
}
