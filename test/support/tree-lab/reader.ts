/** A program for containers that reads files and tells how long each read took (reader.c). */
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Lab, TreeManifest } from "../lab/index.ts";
import { compiledProgram } from "./compiled.ts";

export async function readerProgram(): Promise<string> {
  return compiledProgram("reader");
}

export interface SlowRead {
  /** CLOCK_MONOTONIC, as `performance.timeOrigin` is not: compare with other reads alone. */
  readonly startMs: number;
  readonly latencyMs: number;
  readonly offset: number;
  readonly path: string;
}

export interface ReadLog {
  readonly reads: number;
  readonly bytes: number;
  readonly maxMs: number;
  readonly p99Ms: number;
  /** Reads of 20 ms or more. */
  readonly slow: readonly SlowRead[];
  /** SHA-256 of each file that was read to its end, in hex. */
  readonly digests: ReadonlyMap<string, string>;
  /** `errno path` of each read that failed. */
  readonly errors: readonly string[];
}

/** Throws when the reader did not come to its end. */
export function parseReadLog(text: string): ReadLog {
  const slow: SlowRead[] = [];
  const digests = new Map<string, string>();
  const errors: string[] = [];
  let done: readonly number[] | undefined;
  for (const line of text.split("\n")) {
    const [word, ...rest] = line.split(" ");
    if (word === "slow") {
      const [startMs = 0, latencyUs = 0, offset = 0] = rest.map(Number);
      const path = rest.slice(3).join(" ");
      slow.push({ startMs, latencyMs: latencyUs / 1000, offset, path });
    } else if (word === "file") digests.set(rest.slice(2).join(" "), rest[0] ?? "");
    else if (word === "error") errors.push(`${rest[0] ?? ""} ${rest.slice(2).join(" ")}`);
    else if (word === "done") done = rest.map(Number);
  }
  if (done === undefined) throw new Error(`the reader did not end: ${text.slice(-300)}`);
  const [reads = 0, bytes = 0, maxUs = 0, p99Us = 0] = done;
  return { reads, bytes, maxMs: maxUs / 1000, p99Ms: p99Us / 1000, slow, digests, errors };
}

export interface FileChoice {
  /** Files from this size to that, in bytes. */
  readonly from: number;
  readonly to: number;
  /** The list ends before their sum passes this. */
  readonly totalBytes: number;
  /** The same seed, the same files in the same order. */
  readonly seed: number;
}

export interface FileList {
  /** On the machine; bind it into the container. */
  readonly file: string;
  /** SHA-256 by path, in hex. */
  readonly digests: ReadonlyMap<string, string>;
  readonly bytes: number;
}

/** Regular files of an image's tree, in an order by the seed: spread over its layers. */
export async function writeFileList(
  lab: Lab,
  tree: TreeManifest,
  choice: FileChoice,
): Promise<FileList> {
  const rank = (path: string): string =>
    createHash("sha256").update(`${choice.seed} ${path}`).digest("hex");
  const candidates = [...tree]
    .filter(([path, { type, size }]) => {
      const bytes = Number(size);
      return type === "f" && bytes >= choice.from && bytes <= choice.to && !path.includes("\\");
    })
    .map(([path, { size, sha256 }]) => ({ path: path.slice(1), size: Number(size), sha256 }))
    .sort((one, other) => (rank(one.path) < rank(other.path) ? -1 : 1));
  const digests = new Map<string, string>();
  let bytes = 0;
  for (const { path, size, sha256 } of candidates) {
    if (bytes + size > choice.totalBytes) break;
    bytes += size;
    digests.set(path, sha256);
  }
  const file = join(await lab.makeFolder("list"), "list");
  await writeFile(file, `${[...digests.keys()].join("\n")}\n`);
  return { file, digests, bytes };
}
