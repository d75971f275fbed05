/** Small C programs of the lab, built once for each version of their source. */
import { createHash } from "node:crypto";
import { access, mkdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { labFolder, projectFolder, run } from "../lab/index.ts";

/** The path of the program made from `NAME.c` of this folder; static: it runs in any image. */
export async function compiledProgram(name: "reader" | "packets"): Promise<string> {
  const source = join(projectFolder, "test", "support", "tree-lab", `${name}.c`);
  const hash = createHash("sha256").update(await readFile(source));
  const binary = join(labFolder, "bin", `${name}-${hash.digest("hex").slice(0, 12)}`);
  const isBuilt = await access(binary).then(
    () => true,
    () => false,
  );
  if (isBuilt) return binary;
  await mkdir(join(labFolder, "bin"), { recursive: true });
  const partial = `${binary}.${process.pid}`;
  const options = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"];
  await run("gcc", [...options, "-o", partial, source]);
  await rename(partial, binary);
  return binary;
}
