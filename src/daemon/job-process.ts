/** The entry of a job process: one job, then it exits and gives its memory back. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { systemClock } from "../base/clock.ts";
import { DaemonError, errorCode, isDiskFull, withContext } from "../base/errors.ts";
import { createLogger } from "../base/log.ts";
import { mountHolding, readMountInfo } from "../base/mountinfo.ts";
import { systemRandom } from "../base/random.ts";
import { openFill } from "../cache/index.ts";
import type { FillWriter } from "../cache/index.ts";
import { ErofsReader } from "../erofs/index.ts";
import { makeLayerMap, mergeLayers, openLayerMap, selfTestGzipResume } from "../image/index.ts";
import { parseDiffId, parseDigest } from "../oci/index.ts";
import { openImageSource, RegistryPool } from "../registry/index.ts";
import { serveJob } from "./child-job.ts";
import type { Job, LayerJob, LayerJobResult, MergeJob } from "./job-types.ts";
import { writeNewFile } from "./json-file.ts";

type Progress = (done: number) => void;

/** Blob bytes between two progress messages. */
const PROGRESS_BYTES = 4 * 1024 * 1024;

async function runLayerJob(job: LayerJob, progress: Progress): Promise<LayerJobResult> {
  if (job.mediaType.includes("gzip")) await selfTestGzipResume();
  const log = createLogger("warn", { role: "map-job" });
  await using registries = new RegistryPool(job.registry, {
    clock: systemClock,
    random: systemRandom,
    log,
  });
  let failure = new DaemonError("not-found", `no source for blob ${job.digest} is known`);
  for (const source of job.sources) {
    try {
      return { source, ...(await makeFrom(source, job, registries, progress)) };
    } catch (error) {
      failure = withContext(error, `from ${source}`);
      if (isDiskFull(error) || !mayHaveOtherSource(error)) throw error;
      log.warn("map-source-failed", { source, err: error });
    }
  }
  throw failure;
}

/** A layer that cannot be mapped is the same layer everywhere. */
function mayHaveOtherSource(error: unknown): boolean {
  return !["invalid-argument", "unimplemented", "canceled"].includes(errorCode(error));
}

async function makeFrom(
  text: string,
  job: LayerJob,
  registries: RegistryPool,
  progress: Progress,
): Promise<Pick<LayerJobResult, "keptBlobBytes" | "keptBytes">> {
  const signal = new AbortController().signal; // an abort kills this process
  await using source = await openImageSource(text, { registries }, { baseDir: "/" });
  const digest = parseDigest(job.digest);
  const blob = await source.open(digest, undefined, { signal, size: job.size, verify: false });
  const { fill } = job;
  await using tarFill = fill === undefined ? undefined : await openFill(fill);
  await using blobFill = fill?.blob === undefined ? undefined : await openFill(fill.blob);
  let told = 0;
  await makeLayerMap({
    blob,
    descriptor: { digest, size: job.size, mediaType: job.mediaType },
    diffId: parseDiffId(job.diffId),
    mapPath: job.mapPath,
    signal,
    sink: {
      ...(tarFill === undefined ? {} : { onTar: (bytes) => tarFill.write(bytes) }),
      ...(blobFill === undefined ? {} : { onBlob: (bytes) => blobFill.write(bytes) }),
    },
    onProgress: ({ blobBytes }) => {
      if (blobBytes - told < PROGRESS_BYTES) return;
      told = blobBytes;
      progress(blobBytes);
    },
  });
  const keptOf = async (writer: FillWriter | undefined): Promise<number> =>
    writer === undefined ? 0 : (await writer.finish()).keptBytes;
  return { keptBytes: await keptOf(tarFill), keptBlobBytes: await keptOf(blobFill) };
}

async function runMergeJob(job: MergeJob): Promise<object> {
  const readers: ErofsReader[] = [];
  for (const path of job.mapPaths) {
    await using map = await openLayerMap(path);
    readers.push(ErofsReader.open(await map.readMetadata()));
  }
  const merged = mergeLayers(readers);
  await mkdir(dirname(job.target), { recursive: true, mode: 0o700 });
  await writeNewFile(job.target, merged);
  return {};
}

/** A full disk is for somebody to clear: says which. */
async function nameFullDisk(error: unknown, path: string): Promise<unknown> {
  if (!isDiskFull(error)) return error;
  const mount = mountHolding(await readMountInfo(), path);
  const which =
    mount === undefined ? "" : ` ${mount.source} (${mount.fsType}) at ${mount.mountpoint}`;
  return withContext(error, `the file system${which} is full`);
}

serveJob(async (message, progress) => {
  const job = message as Job; // our own parent on the other end
  try {
    return await (job.kind === "layer" ? runLayerJob(job, progress) : runMergeJob(job));
  } catch (error) {
    throw await nameFullDisk(error, job.kind === "layer" ? job.mapPath : job.target);
  }
});
