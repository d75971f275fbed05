/**
 * How fast a layer map is made: MB of tar a second, for each compression.
 *
 *     node .build/image/bench/index-speed.js [FOLDER] [MIB]
 *
 * Makes a tar of the folder (default /usr, 200 MiB of it), compresses it, and maps each form three
 * times; the best run counts. Beside it, for scale: one sha256 of the tar (a map needs two of the
 * tar and two of the blob) and, for gzip, node's own gunzip of the whole.
 */
import { execFile } from "node:child_process";
import { createReadStream } from "node:fs";
import { mkdtemp, open, readFile, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { systemClock } from "../src/base/clock.ts";
import { decodeBlock, sha256Of } from "../src/block/index.ts";
import { makeLayerMap, openLayerMap } from "../src/image/index.ts";
import { digestOf, parseDiffId } from "../src/oci/index.ts";

const run = promisify(execFile);
const MB = 1e6;
const RUNS = 3;
const FORMS: readonly (readonly [string, string])[] = [
  ["none", "cp a.tar a.none"],
  ["gzip -6", "gzip -6c a.tar > a.gz6"],
  ["gzip -1", "gzip -1c a.tar > a.gz1"],
  ["pigz", "pigz -c a.tar > a.pigz"],
  ["zstd, one frame", "zstd -qc a.tar > a.zst"],
  ["zstd, 512 KiB frames", "split -b 512K --filter='zstd -qc' a.tar > a.zsts"],
];

async function main(): Promise<void> {
  const [folder = "/usr", mib = "200"] = process.argv.slice(2);
  const work = await mkdtemp(join(tmpdir(), "index-speed-"));
  try {
    await makeTar(work, folder, Number(mib));
    for (const [name, command] of FORMS) {
      await run("bash", ["-c", command], { cwd: work, maxBuffer: 1024 });
      const file = command.split(" ").at(-1) ?? "";
      await measure(name, join(work, file), work);
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Whole tar blocks of the folder's archive, cut off at a member border by an end marker. */
async function makeTar(work: string, folder: string, mib: number): Promise<void> {
  const path = join(work, "a.tar");
  const size = Math.floor((mib * 1024 * 1024) / 512) * 512;
  const command = `tar -C ${folder} -cf - . 2>/dev/null | head -c ${size} > a.tar; true`;
  await run("bash", ["-c", command], { cwd: work });
  // The last member is cut short: leave it out by asking tar where it begins.
  const { stdout } = await run("bash", ["-c", "tar -tRf a.tar 2>/dev/null | tail -1"], {
    cwd: work,
  });
  const block = Number(/^block (\d+):/.exec(stdout)?.[1]);
  await truncate(path, block * 512);
}

interface Run {
  readonly wallSeconds: number;
  readonly cpuSeconds: number;
}

async function timed(work: () => unknown): Promise<Run> {
  const startMs = systemClock.nowMs();
  const cpuStart = process.cpuUsage();
  await work();
  const cpu = process.cpuUsage(cpuStart);
  return {
    wallSeconds: (systemClock.nowMs() - startMs) / 1000,
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
  };
}

async function best(count: number, work: () => unknown): Promise<Run> {
  const runs: Run[] = [];
  for (let index = 0; index < count; index += 1) runs.push(await timed(work));
  return {
    wallSeconds: Math.min(...runs.map((entry) => entry.wallSeconds)),
    cpuSeconds: Math.min(...runs.map((entry) => entry.cpuSeconds)),
  };
}

async function measure(name: string, path: string, work: string): Promise<void> {
  const blob = await readFile(path);
  const tar = await readFile(join(work, "a.tar"));
  const descriptor = { digest: digestOf(blob), size: blob.length, mediaType: "test" };
  const diffId = parseDiffId(digestOf(tar));
  const mapPath = join(work, "layer.map");
  let mapBytes = 0;
  const made = await best(RUNS, async () => {
    const source = createReadStream(path, { highWaterMark: 256 * 1024 });
    const { signal } = new AbortController();
    ({ mapBytes } = await makeLayerMap({ blob: source, descriptor, diffId, mapPath, signal }));
  });
  const hash = await best(RUNS, () => digestOf(tar));
  const gunzip = name.startsWith("zstd") || name === "none" ? undefined : gunzipSync;
  const plain = gunzip === undefined ? undefined : await best(RUNS, () => gunzip(blob));
  const { decodeSeconds, blocks } = await decodeAll(mapPath, path);
  const rate = (seconds: number): string => (tar.length / MB / seconds).toFixed(0);
  process.stdout.write(
    `${name.padEnd(21)} map ${rate(made.wallSeconds)} MB/s (${rate(made.cpuSeconds)} a core), ` +
      `sha256 ${rate(hash.cpuSeconds)}, ` +
      `gunzip ${plain === undefined ? "-" : rate(plain.cpuSeconds)}, ` +
      `decode ${decodeSeconds === 0 ? "-" : rate(decodeSeconds)}; ${blocks} blocks, ` +
      `map ${(mapBytes / MB).toFixed(2)}, blob ${(blob.length / MB).toFixed(0)}, ` +
      `tar ${(tar.length / MB).toFixed(0)} MB\n`,
  );
}

async function decodeAll(
  mapPath: string,
  blobPath: string,
): Promise<{ decodeSeconds: number; blocks: number }> {
  await using map = await openLayerMap(mapPath);
  const file = await open(blobPath);
  try {
    let seconds = 0;
    for (let index = 0; index < map.blockTable.count; index += 1) {
      const block = map.blockTable.at(index);
      if (block.codec === "zstd-sequential") continue;
      const bytes = Buffer.alloc(block.blobLength);
      await file.read(bytes, 0, bytes.length, block.blobOffset);
      const startMs = systemClock.nowMs();
      const window = await map.readWindow(block);
      const tar = await decodeBlock(block, bytes, window);
      seconds += (systemClock.nowMs() - startMs) / 1000;
      if (!(await sha256Of(tar)).equals(block.tarSha256)) throw new Error(`block ${index}`);
    }
    return { decodeSeconds: seconds, blocks: map.blockTable.count };
  } finally {
    await file.close();
  }
}

await main();
