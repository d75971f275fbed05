// Exit status 0: node_modules holds what package-lock.json names. npm writes what it installed
// into node_modules/.package-lock.json; packages for other machines are optional and absent there.
import { readFileSync } from "node:fs";
import process from "node:process";
import { URL } from "node:url";

const root = new URL("../../", import.meta.url);
const read = (path) => JSON.parse(readFileSync(new URL(path, root), "utf8")).packages;

try {
  const wanted = read("package-lock.json");
  const installed = read("node_modules/.package-lock.json");
  const stale = Object.entries(wanted).filter(
    ([path, entry]) =>
      path !== "" &&
      installed[path]?.version !== entry.version &&
      !(entry.optional === true && installed[path] === undefined),
  );
  process.exitCode = stale.length === 0 ? 0 : 1;
} catch {
  process.exitCode = 1;
}
