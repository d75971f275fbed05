/** The program's version, from package.json. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { packageRoot } from "../base/package-root.ts";

const manifestSchema = z.object({ version: z.string() });

export function programVersion(): string {
  const text = readFileSync(join(packageRoot(), "package.json"), "utf8");
  return manifestSchema.parse(JSON.parse(text)).version;
}
