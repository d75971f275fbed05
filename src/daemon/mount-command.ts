/**
 * `faasnet mount`: image service and keeper without the snapshotter, in the foreground. Nothing
 * is left when it ends, also after kill -9: the keeper sees the end of its pipe and unmounts.
 */
import { mkdir, rm } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { systemClock } from "../base/clock.ts";
import { DaemonError } from "../base/errors.ts";
import { createLogger } from "../base/log.ts";
import type { Logger } from "../base/log.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import { ProcessLock } from "../base/process-lock.ts";
import { systemRandom } from "../base/random.ts";
import { Scope } from "../base/scope.ts";
import { chainIds } from "../oci/index.ts";
import type { ChainId } from "../oci/index.ts";
import { composeImageService } from "./compose-image-service.ts";
import type { Config } from "./config.ts";
import type { EnsureProgress } from "./ensure-image.ts";
import type { ImageService } from "./image-service.ts";
import { forgetMount, rememberMount } from "./mount-records.ts";
import { blocksBySource } from "./reports.ts";
import { keeperRole } from "./roles.ts";
import { RoleSupervisor } from "./supervisor.ts";

/** How often it is looked whether somebody unmounted the folder. */
const WATCH_MS = 500;
const CLEAN_UP_MS_MAX = 10_000;

export interface MountRequest {
  readonly image: string;
  /** An absolute path of an existing folder. */
  readonly target: string;
  readonly platform: string | undefined;
  readonly config: Config;
}

export interface MountedImage {
  /** The mode that was chosen, never `auto`. */
  readonly mode: string;
  /** Why that mode, in words. */
  readonly modeReason: string;
  readonly files: number;
}

/** What a mount did, told when it ends. */
export interface MountSummary {
  readonly files: number;
  /** Bytes of the unpacked layers. */
  readonly imageBytes: number;
  /** Bytes that came from the registry. */
  readonly fetchedBytes: number;
  /** Blocks read, by where they came from: `memory`, `disk`, `registry`. */
  readonly blocksBySource: Readonly<Record<string, number>>;
}

export interface MountOptions {
  readonly signal: AbortSignal;
  readonly onProgress: (progress: EnsureProgress) => void;
  readonly onMounted: (mounted: MountedImage) => void;
}

export async function mountImage(
  request: MountRequest,
  options: MountOptions,
): Promise<MountSummary> {
  const log = createLogger(request.config.logLevel, { role: "mount", pid: process.pid });
  const scope = new Scope();
  try {
    return await run(request, options, { scope, log });
  } finally {
    await scope[Symbol.asyncDispose]();
  }
}

async function run(
  request: MountRequest,
  { signal, onProgress, onMounted }: MountOptions,
  { scope, log }: { readonly scope: Scope; readonly log: Logger },
): Promise<MountSummary> {
  const config = besideDaemon(request.config);
  const { target } = request;
  await mkdir(config.state, { recursive: true, mode: 0o711 });
  scope.use(await ProcessLock.acquire(config.state, "daemon"));
  await rememberMount(config.state, { pid: process.pid, target });
  scope.defer(() => forgetMount(config.state, target)); // last: `umount` waits for it
  const keeper = scope.use(
    new RoleSupervisor(keeperRole(config, { tiedTo: target }), systemClock, log),
  );
  await keeper.start({ signal });
  const deps = { clock: systemClock, random: systemRandom, log };
  const { service, modeReason } = scope.use(await composeImageService(config, deps, { signal }));
  scope.defer(async () => {
    keeper.stopWatching();
    const wait = { signal: AbortSignal.timeout(CLEAN_UP_MS_MAX) };
    await service.parts.rootfs.unmountAll({ ...wait, unusedOnly: false });
    await service.parts.keeper.shutdown({ ...wait, force: true });
    await rm(join(config.state, "mounts.json"), { force: true });
  });
  const { image, layers } = await service.ensure(
    { reference: request.image, platform: request.platform, alternatives: [] },
    { signal, onProgress },
  );
  const chainId = chainIds(image.layers.map((layer) => layer.diffId)).at(-1);
  if (chainId === undefined) throw new DaemonError("internal", "an image without layers");
  const { mode } = await service.mount(chainId, { signal, target });
  const files = layers.reduce((sum, layer) => sum + layer.usageInodes, 0);
  onMounted({ mode, modeReason, files });
  await untilUnmounted(target, signal);
  return summary(service, chainId, { files });
}

/** The daemon of this node may have the configured port and name. */
function besideDaemon(config: Config): Config {
  const { peer } = config;
  if (!peer.enabled) return config;
  const name = `${peer.name === "" ? hostname() : peer.name}-mount-${process.pid}`;
  const bind = `${peer.bind.slice(0, peer.bind.lastIndexOf(":"))}:0`;
  return { ...config, peer: { ...peer, name, bind, advertise: "", exchangePort: 0, mirror: "" } };
}

async function untilUnmounted(target: string, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    if (mountAt(await readMountInfo(), target) === undefined) return;
    try {
      await systemClock.sleep(WATCH_MS, { signal });
    } catch {
      return; // told to end
    }
  }
}

async function summary(
  service: ImageService,
  chainId: ChainId,
  { files }: { readonly files: number },
): Promise<MountSummary> {
  const layers = (await service.knows(chainId)) ?? [];
  const keeper = await service.parts.keeper.stats({ signal: AbortSignal.timeout(CLEAN_UP_MS_MAX) });
  const sources = blocksBySource(service.parts.resolver.stats(), keeper);
  return {
    files,
    imageBytes: layers.reduce((sum, layer) => sum + layer.tarBytes, 0),
    fetchedBytes: Object.values(sources).reduce((sum, source) => sum + source.bytes, 0),
    blocksBySource: Object.fromEntries(
      Object.entries(sources).map(([name, { blocks }]) => [name, blocks]),
    ),
  };
}
