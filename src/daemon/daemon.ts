/**
 * `faasnet daemon`: the snapshotter, and the supervisor of keeper and image service. It may end
 * and start again at any time without a container noticing.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { raceAbort, untilAborted } from "../base/abort.ts";
import { systemClock } from "../base/clock.ts";
import { errorMessage, systemErrorName } from "../base/errors.ts";
import { createLogger } from "../base/log.ts";
import type { Logger } from "../base/log.ts";
import { ProcessLock } from "../base/process-lock.ts";
import { Scope } from "../base/scope.ts";
import { connectControl } from "../control/index.ts";
import type { ControlConnection } from "../control/index.ts";
import { ContainerdClient, Snapshotter, SnapshotterServer } from "../snapshotter/index.ts";
import type { Config } from "./config.ts";
import { ImageClient } from "./image-client.ts";
import { removeUnfinished, writeJsonFile } from "./json-file.ts";
import { statePaths } from "./paths.ts";
import { RoleClient } from "./role-client.ts";
import { imageServiceRole, keeperRole } from "./roles.ts";
import { RoleSupervisor } from "./supervisor.ts";

/** A stop that takes longer leaves the rest to the next start. */
const STOP_MS_MAX = 15_000;
/** A stop waits this long for a role that is being started again. */
const ROLES_BACK_MS_MAX = 5_000;
/** Then an image service that was told to make room is killed. */
const REPLACE_MS_MAX = 5_000;

const helloSchema = z.object({ pid: z.int().min(2) });

/** Runs until the signal aborts, then stops cleanly. Rejects when it cannot start. */
export async function runDaemon(
  config: Config,
  options: { readonly signal: AbortSignal },
): Promise<void> {
  const log = createLogger(config.logLevel, { role: "snapshotter", pid: process.pid });
  process.on("unhandledRejection", (error) => {
    log.error("unhandled-rejection", { err: error });
  });
  const scope = new Scope();
  try {
    await start(config, scope, log, options);
    log.info("daemon-started", { address: config.address, root: config.root });
    await untilAborted(options.signal);
  } finally {
    log.info("daemon-stopping");
    await scope[Symbol.asyncDispose]();
    log.info("daemon-stopped");
  }
}

async function start(
  config: Config,
  scope: Scope,
  log: Logger,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  await mkdir(config.root, { recursive: true, mode: 0o711 });
  await mkdir(config.state, { recursive: true, mode: 0o711 });
  scope.use(await ProcessLock.acquire(config.state, "daemon"));
  await removeUnfinished(config.state, /^config\.json\..*\.tmp$/);
  const configFile = join(config.state, "config.json");
  await writeJsonFile(configFile, config);
  const keeper = new RoleSupervisor(keeperRole(config), systemClock, log);
  const imageService = new RoleSupervisor(imageServiceRole(config, configFile), systemClock, log);
  const client = new RoleClient(statePaths(config.state).imageSocket, systemClock);
  const images = new ImageClient(client);
  const containerd = new ContainerdClient(config.containerdAddress, { clock: systemClock });
  const snapshotter = Snapshotter.open({
    root: config.root,
    provider: images,
    containerd,
    clock: systemClock,
    log: log.child({ module: "snapshotter" }),
    configuredHosts: config.registry.knownHosts,
    certsFolders: [config.registry.hostsDir],
  });
  // The socket is there first: containerd gives up on a plugin that it cannot reach.
  const server = await SnapshotterServer.listen({
    address: config.address,
    ready: snapshotter,
    clock: systemClock,
    log,
  });
  scope.use(keeper);
  scope.use(imageService);
  scope.use(client);
  scope.defer(() => stopRoles(client, { keeper, imageService }, log));
  scope.use(containerd);
  scope.defer(async () => {
    // One that could not be opened has told every caller why.
    await snapshotter.then((one) => one[Symbol.asyncDispose]()).catch(() => undefined);
  });
  scope.use(server);
  await keeper.start({ signal });
  await replaceImageService(config, log, signal);
  await imageService.start({ signal });
  await snapshotter;
}

/** One of an earlier daemon may still serve readers, with its configuration and version. */
async function replaceImageService(
  config: Config,
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  let connection: ControlConnection;
  try {
    connection = await connectControl(statePaths(config.state).imageSocket, {}, { signal });
  } catch (error) {
    if (signal.aborted) throw error;
    return; // nobody there
  }
  let pid: number;
  try {
    ({ pid } = helloSchema.parse(await connection.call("Image.Hello", {}, { signal })));
  } catch (error) {
    if (connection.isClosed && !signal.aborted) return; // it died just now
    throw error;
  }
  log.info("image-service-replaced", { pid });
  sendSignal(pid, "SIGTERM");
  const cancelKill = systemClock.timer(REPLACE_MS_MAX, () => {
    sendSignal(pid, "SIGKILL");
  });
  await raceAbort(connection.closed, signal);
  cancelKill();
}

function sendSignal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (systemErrorName(error) !== "ESRCH") throw error; // it has ended meanwhile
  }
}

async function stopRoles(
  client: RoleClient,
  roles: { readonly keeper: RoleSupervisor; readonly imageService: RoleSupervisor },
  log: Logger,
): Promise<void> {
  // One that has died just now is started again first: only it knows what is to be unmounted.
  const back = { signal: AbortSignal.timeout(ROLES_BACK_MS_MAX) };
  await Promise.allSettled([roles.keeper.reached(back), roles.imageService.reached(back)]);
  // Before the call, or their end would look like a crash.
  roles.keeper.stopWatching();
  roles.imageService.stopWatching();
  try {
    const signal = AbortSignal.timeout(STOP_MS_MAX);
    const answer = await client.call("Image.Shutdown", {}, { signal });
    log.info("roles-stopped", { ...(answer as object) });
  } catch (error) {
    log.warn("roles-not-stopped", { reason: errorMessage(error) });
  }
}
