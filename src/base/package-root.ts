/** Where the package lies: the nearest folder above this file with a package.json. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
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

/** The package's version, as a role says it. */
export async function packageVersion(): Promise<string> {
  const text = await readFile(join(packageRoot(), "package.json"), "utf8");
  const { version } = JSON.parse(text) as { readonly version?: unknown };
  return typeof version === "string" ? version : "unknown";
}
