/** Another build of the program: this one with other wire versions, for fleets of several. */
import { cp, mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { projectFolder, type Lab } from "../lab/index.ts";

export interface Versions {
  readonly lowest: number;
  readonly highest: number;
}

const CONSTANTS = join("dist", "src", "peer", "wire-versions.js");
const HIGHEST = "WIRE_VERSION";
const LOWEST = "WIRE_VERSION_LOWEST";

/** Where a constant stands; throws unless it is there exactly once. */
function placeOf(text: string, name: string): { readonly line: string; readonly value: number } {
  const found = [...text.matchAll(new RegExp(`^export const ${name} = (\\d+);$`, "gm"))];
  const [first] = found;
  if (first === undefined || found.length !== 1) {
    throw new Error(`${CONSTANTS} has "export const ${name} = …;" ${found.length} times, not once`);
  }
  return { line: first[0], value: Number(first[1]) };
}

/** What this build speaks. */
export async function builtVersions(): Promise<Versions> {
  const text = await readFile(join(projectFolder, CONSTANTS), "utf8");
  return { lowest: placeOf(text, LOWEST).value, highest: placeOf(text, HIGHEST).value };
}

/** The path of the other build's program. */
export async function otherBuild(lab: Lab, versions: Versions): Promise<string> {
  const folder = await lab.makeFolder("build");
  await mkdir(join(folder, "bin"));
  await cp(join(projectFolder, "bin", "faasnet"), join(folder, "bin", "faasnet"));
  await cp(join(projectFolder, "dist", "src"), join(folder, "dist", "src"), { recursive: true });
  for (const name of ["package.json", "proto", "node_modules"]) {
    await symlink(join(projectFolder, name), join(folder, name));
  }
  const file = join(folder, CONSTANTS);
  let text = await readFile(file, "utf8");
  for (const [name, value] of [
    [HIGHEST, versions.highest],
    [LOWEST, versions.lowest],
  ] as const) {
    const { line } = placeOf(text, name);
    text = text.replace(line, `export const ${name} = ${value};`);
  }
  await writeFile(file, text);
  return join(folder, "bin", "faasnet");
}
