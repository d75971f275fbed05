// Exit status 0: every source is older than the last finished build (dist/.built). `--done` marks a
// build as finished and removes outputs whose source is gone, so that no dead test is run.
import { readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { URL, fileURLToPath } from "node:url";
import path from "node:path";
import process from "node:process";

const root = fileURLToPath(new URL("../../", import.meta.url));
const stamp = path.join(root, "dist/.built");
const sources = ["src", "test", "bench", "scripts"];

function* walk(folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* walk(full);
    else yield full;
  }
}

function exists(file) {
  return statSync(file, { throwIfNoEntry: false }) !== undefined;
}

function outputOf(source) {
  return path.join(root, "dist", path.relative(root, source)).replace(/\.ts$/, ".js");
}

function isSource(file) {
  return file.endsWith(".ts") && !file.endsWith(".d.ts");
}

function fresh() {
  const built = statSync(stamp, { throwIfNoEntry: false })?.mtimeMs;
  if (built === undefined) return false;
  const newer = (file) => statSync(file).mtimeMs > built;
  if (["tsconfig.json", "package-lock.json"].some((name) => newer(path.join(root, name))))
    return false;
  for (const folder of sources) {
    for (const file of walk(path.join(root, folder))) {
      if (file.endsWith(".ts") && newer(file)) return false;
      if (isSource(file) && !exists(outputOf(file))) return false;
    }
  }
  return [...orphans()].length === 0;
}

function* orphans() {
  for (const folder of sources) {
    const built = path.join(root, "dist", folder);
    if (!exists(built)) continue;
    for (const file of walk(built)) {
      const source = path.relative(path.join(root, "dist"), file).replace(/\.js(\.map)?$/, ".ts");
      if (!exists(path.join(root, source))) yield file;
    }
  }
}

if (process.argv.includes("--done")) {
  for (const file of orphans()) rmSync(file);
  writeFileSync(stamp, "");
} else {
  process.exitCode = fresh() ? 0 : 1;
}
