/** Where the lab's tools lie: what scripts/setup and scripts/lab-images make. */
import { readFileSync, readdirSync, statSync } from "node:fs";
import { delimiter, join } from "node:path";
import { packageRoot } from "../../../src/base/package-root.ts";

export const projectFolder = packageRoot();
export const labFolder = join(projectFolder, ".lab");
export const imagesFolder = join(labFolder, "images");
export const registryStorage = join(labFolder, "registry");
/** Another build can be tested by naming it. */
export const programPath = process.env["FAASNET_PROGRAM"] ?? join(projectFolder, "bin", "faasnet");
export const criProto = join(labFolder, "proto", "cri", "api.proto");
export const containerdProtoFolder = join(labFolder, "proto");
/** Built by scripts/setup where Go is on the machine. */
export const nerdctlPath = join(labFolder, "go", "bin", "nerdctl");
export const erofsTools = join(labFolder, "erofs", "bin");

/** The containerd releases of the lab: the floor, the most deployed one, the newest. */
export type ContainerdLine = "1.6" | "1.7" | "2";
export const CONTAINERD_LINES: readonly ContainerdLine[] = ["1.6", "1.7", "2"];

function exists(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/**
 * The folder with containerd, ctr and the shim, or undefined. "1.6" is the machine's own when it is
 * that; "2" is the newest 2.x that was unpacked (Debian's moving release decides which).
 */
export function containerdBinaries(line: ContainerdLine): string | undefined {
  const unpacked = join(labFolder, "containerd");
  if (line === "1.6") return exists("/usr/bin/containerd") ? "/usr/bin" : undefined;
  const names = exists(unpacked) ? readdirSync(unpacked) : [];
  const wanted = names
    .filter((name) => (line === "2" ? /^2\.\d+$/.test(name) : name === line))
    .sort((a, b) => Number(b.split(".")[1]) - Number(a.split(".")[1]));
  const [newest] = wanted;
  return newest === undefined ? undefined : join(unpacked, newest, "usr", "bin");
}

export function findCommand(name: string): string | undefined {
  const folders = (process.env["PATH"] ?? "").split(delimiter).concat("/usr/sbin", "/sbin");
  return folders.map((folder) => join(folder, name)).find(exists);
}

/** What scripts/lab-images says about an image that it built. */
export interface LabImage {
  readonly name: string;
  /** Of the manifest. */
  readonly digest: string;
  /** All layers, as in the registry. */
  readonly bytes: number;
  readonly layers: readonly {
    readonly digest: string;
    readonly size: number;
    readonly mediaType: string;
  }[];
}

export const LAB_IMAGES = [
  "pause",
  "busybox",
  "debian",
  "pysci",
  "pg",
  "node",
  "edge",
  "edge-zstd",
] as const;
export type LabImageName = (typeof LAB_IMAGES)[number];

export function labImage(name: LabImageName): LabImage {
  const text = readFileSync(join(imagesFolder, `${name}.json`), "utf8");
  return JSON.parse(text) as LabImage;
}

export function isLabImageBuilt(name: LabImageName): boolean {
  return exists(join(imagesFolder, `${name}.json`)) && exists(registryStorage);
}
