/** Where the package lies: the nearest folder above this file with a package.json. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** Works from src/, dist/ and .build/NAME/ alike. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, "package.json"))) {
    const above = dirname(folder);
    if (above === folder) throw new Error("package.json not found above the program");
    folder = above;
  }
  return folder;
}

export function protoPath(file: string): string {
  return join(packageRoot(), "proto", file);
}
