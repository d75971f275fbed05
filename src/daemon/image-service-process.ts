/**
 * The image service as a process: `image-service-process.js CONFIG_JSON_FILE`. Readers wait while
 * it is away, so it may be killed or replaced at any time. SIGTERM makes room for a successor and
 * leaves all mounts; Image.Shutdown ends the service for good.
 */
import { fileURLToPath } from "node:url";
import { untilAborted } from "../base/abort.ts";
import { systemClock } from "../base/clock.ts";
import { errorMessage } from "../base/errors.ts";
import { createLogger } from "../base/log.ts";
import { packageVersion } from "../base/package-root.ts";
import { LOCK_HELD_EXIT_STATUS, ProcessLock } from "../base/process-lock.ts";
import { systemRandom } from "../base/random.ts";
import { ControlServer } from "../control/index.ts";
import { composeImageService } from "./compose-image-service.ts";
import { parseResolvedConfig } from "./config.ts";
import { formatPlatform } from "../oci/index.ts";
import { imageHandlers } from "./image-handlers.ts";
import type { ImageHandlerOptions } from "./image-handlers.ts";
import type { ImageService } from "./image-service.ts";
import { platformOf } from "./image-resolver.ts";
import { readJsonFile } from "./json-file.ts";
import { statePaths } from "./paths.ts";

/** A clean end that takes longer is cut short. */
const STOP_MS_MAX = 10_000;

interface Ready {
  readonly service: ImageService;
  readonly options: ImageHandlerOptions;
}

async function main(configFile: string): Promise<void> {
  const config = parseResolvedConfig(await readJsonFile(configFile));
  const log = createLogger(config.logLevel, { role: "image-service", pid: process.pid });
  process.on("unhandledRejection", (error) => {
    log.error("unhandled-rejection", { err: error });
  });
  const stop = new AbortController();
  process.on("SIGTERM", () => {
    stop.abort();
  });
  process.on("SIGINT", () => undefined);
  process.on("SIGHUP", () => undefined);
  const startedMs = systemClock.nowMs();
  const lock = await ProcessLock.acquireUnlessHeld(config.state, "image-service");
  if (lock === undefined) process.exit(LOCK_HELD_EXIT_STATUS);
  let supply: (ready: Ready) => void = () => undefined;
  const ready = new Promise<Ready>((resolve) => {
    supply = resolve;
  });
  // The socket answers at once; calls wait for the service behind it.
  const server = await ControlServer.listen(
    statePaths(config.state).imageSocket,
    imageHandlers(ready),
  );
  const composed = await composeImageService(
    config,
    { clock: systemClock, random: systemRandom, log },
    { signal: stop.signal },
  );
  const { service, modeReason } = composed;
  const shutdown = async (): Promise<number> => {
    const wait = { signal: AbortSignal.timeout(STOP_MS_MAX) };
    const remaining = await service.unmountUnused(wait);
    const kept = await service.parts.keeper.shutdown({ ...wait, force: false });
    log.info("image-service-shutdown", { remaining, kept });
    setImmediate(() => {
      stop.abort();
    });
    return Math.max(remaining, kept);
  };
  const facts = {
    version: await packageVersion(),
    startedMs,
    modeReason,
    platform: formatPlatform(platformOf(undefined)),
  };
  supply({ service, options: { facts, shutdown } });
  log.info("image-service-started", { mode: service.parts.rootfs.mode, modeReason });
  await untilAborted(stop.signal);
  systemClock.timer(STOP_MS_MAX, () => process.exit(1));
  await server[Symbol.asyncDispose]();
  await composed[Symbol.asyncDispose]();
  log.info("image-service-stopped");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await main(process.argv[2] ?? "");
    process.exit(0);
  } catch (error) {
    process.stderr.write(`image service: ${errorMessage(error)}\n`);
    process.exit(1);
  }
}
