/** The entry of a job process: one job, then it exits and gives its memory back. */
import { mkdir, open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { systemClock } from "../base/clock.ts";
import { DaemonError, errorCode, withContext } from "../base/errors.ts";
import { createLogger } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { openFill } from "../cache/index.ts";
import { ErofsReader } from "../erofs/index.ts";
import { makeLayerMap, mergeLayers, openLayerMap, selfTestGzipResume } from "../image/index.ts";
import { parseDiffId, parseDigest } from "../oci/index.ts";
import { openImageSource, RegistryPool } from "../registry/index.ts";
import { serveJob } from "./child-job.ts";
import type { Job, LayerJob, LayerJobResult, MergeJob } from "./job-types.ts";
import { syncFolder } from "./json-file.ts";

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
      return { source, keptBytes: await makeFrom(source, job, registries, progress) };
    } catch (error) {
      failure = withContext(error, `from ${source}`);
      if (!mayHaveOtherSource(error)) throw error;
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
): Promise<number> {
  const signal = new AbortController().signal; // an abort kills this process
  await using source = await openImageSource(text, { registries }, { baseDir: "/" });
  const digest = parseDigest(job.digest);
  const blob = await source.open(digest, undefined, { signal, size: job.size, verify: false });
  await using fill = job.fill === undefined ? undefined : await openFill(job.fill);
  let told = 0;
  await makeLayerMap({
    blob,
    descriptor: { digest, size: job.size, mediaType: job.mediaType },
    diffId: parseDiffId(job.diffId),
    mapPath: job.mapPath,
    signal,
    ...(fill === undefined ? {} : { sink: { onTar: (bytes) => fill.write(bytes) } }),
    onProgress: ({ blobBytes }) => {
      if (blobBytes - told < PROGRESS_BYTES) return;
      told = blobBytes;
      progress(blobBytes);
    },
  });
  return fill === undefined ? 0 : (await fill.finish()).keptBytes;
}

async function runMergeJob(job: MergeJob): Promise<object> {
  const readers: ErofsReader[] = [];
  for (const path of job.mapPaths) {
    await using map = await openLayerMap(path);
    readers.push(ErofsReader.open(await map.readMetadata()));
  }
  const merged = mergeLayers(readers);
  await mkdir(dirname(job.target), { recursive: true, mode: 0o700 });
  const temporary = `${job.target}.${process.pid}.tmp`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(merged);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, job.target);
  await syncFolder(dirname(job.target));
  return {};
}

serveJob(async (message, progress) => {
  const job = message as Job; // our own parent on the other end
  return job.kind === "layer" ? runLayerJob(job, progress) : runMergeJob(job);
});
