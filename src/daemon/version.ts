/** The package's version. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../base/package-root.ts";

export async function packageVersion(): Promise<string> {
  const text = await readFile(join(packageRoot(), "package.json"), "utf8");
  const { version } = JSON.parse(text) as { readonly version?: unknown };
  return typeof version === "string" ? version : "unknown";
}
