/**
 * How fast a layer map is made: MB of tar a second, for each compression.
 *
 *     node .build/image/bench/index-speed.js [FOLDER] [MIB]
 *
 * Makes a tar of the folder (default /usr, 200 MiB of it), compresses it, and maps each form once.
 */
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, readFile, rm, stat, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { systemClock } from "../src/base/clock.ts";
import { decodeBlock, sha256Of } from "../src/block/index.ts";
import { makeLayerMap, openLayerMap } from "../src/image/index.ts";
import { digestOf, parseDiffId, digestFromHash } from "../src/oci/index.ts";

const run = promisify(execFile);
const MB = 1e6;
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

async function measure(name: string, path: string, work: string): Promise<void> {
  const blob = await readFile(path);
  const diffId = await fileDiffId(join(work, "a.tar"));
  const mapPath = join(work, "layer.map");
  const startMs = systemClock.nowMs();
  const cpuStart = process.cpuUsage();
  const { info, mapBytes } = await makeLayerMap({
    blob: createReadStream(path, { highWaterMark: 256 * 1024 }),
    descriptor: { digest: digestOf(blob), size: blob.length, mediaType: "application/x-test" },
    diffId,
    mapPath,
    signal: new AbortController().signal,
  });
  const cpu = process.cpuUsage(cpuStart);
  const seconds = (systemClock.nowMs() - startMs) / 1000;
  const { decodeSeconds, blocks } = await decodeAll(mapPath, path);
  const rate = (value: number): string => `${(info.tarBytes / MB / value).toFixed(0)} MB/s`;
  process.stdout.write(
    `${name.padEnd(22)} map ${rate(seconds)} (cpu ${rate((cpu.user + cpu.system) / 1e6)}), ` +
      `decode ${rate(decodeSeconds)}, ${blocks} blocks, map ${(mapBytes / MB).toFixed(2)} MB ` +
      `of ${(info.tarBytes / MB).toFixed(0)} MB tar, ${(info.blobBytes / MB).toFixed(0)} MB blob\n`,
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

async function fileDiffId(path: string): Promise<ReturnType<typeof parseDiffId>> {
  const hash = createHash("sha256");
  const { size } = await stat(path);
  if (size > 0) for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return parseDiffId(digestFromHash(hash.digest()));
}

await main();
