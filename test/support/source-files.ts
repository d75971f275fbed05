/** The project's own files, as text, for the tests that look at the source tree itself. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../src/base/package-root.ts";

export interface SourceFile {
  /** Relative to the package, with `/`. */
  readonly path: string;
  readonly text: string;
}

/** Built, installed or private to a checkout: not the project's source. */
const IGNORED_FOLDERS = new Set([".git", ".build", ".lab", "dist", "node_modules", "coverage"]);

/** Every file below `folder` (relative to the package; "" is all of it), sorted. */
export function listFiles(folder: string): string[] {
  const root = join(packageRoot(), folder);
  const files: string[] = [];
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
    if (entry.isDirectory()) {
      if (!IGNORED_FOLDERS.has(entry.name)) files.push(...listFiles(path));
    } else if (entry.isFile()) {
      files.push(path);
    }
  }
  return files.sort();
}

export function fileSize(path: string): number {
  return statSync(join(packageRoot(), path)).size;
}

export function readFile(path: string): SourceFile {
  return { path, text: readFileSync(join(packageRoot(), path), "utf8") };
}

export function readFiles(folder: string, ending: string): SourceFile[] {
  return listFiles(folder)
    .filter((path) => path.endsWith(ending))
    .map(readFile);
}
