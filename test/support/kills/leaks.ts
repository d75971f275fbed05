/** What must not be there once every container and image is gone, and once the daemon is. */
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { mountsUnder, type FaasnetDaemon } from "../lab/index.ts";
import { ROLES, type Role } from "./plan.ts";
import { askStatus, livingRoles, openFiles, soleRoles } from "./roles.ts";

/** A life that has served readers may keep so many more descriptors than a fresh one. */
const MORE_FILES_MAX = 12;
/** Map, decoded file and its bitmap of a layer that was opened stay open in the image service. */
const FILES_PER_LAYER = 4;
/** File systems count a file's own blocks (extent trees) beside its data. */
const ALLOCATION_SLACK_BYTES = 2 * 1024 * 1024;
const BLOCK_BYTES = 512;

const HEX = "[0-9a-f]{64}";
const STATE_FILES =
  /^(config\.json|mounts\.json|self-test\.json|keeper\.pid|(faasnet|image|keeper)\.sock|[lc])$/;
const STOPPED_FILES = /^(config\.json|mounts\.json|self-test\.json|[lc])$/;
const ROOT_FILES = new RegExp(
  "^(" +
    [
      "(layers|chains|images|metastore|snapshots|cache|cache/(decoded|blobs|fill))",
      `layers/${HEX}\\.map`,
      `chains/${HEX}\\.erofs`,
      `images/${HEX}\\.json`,
      `cache/(decoded|blobs)/${HEX}(\\.present)?`,
      "cache/session\\.json",
      "metastore/journal",
    ].join("|") +
    ")$",
);

async function under(folder: string): Promise<readonly string[]> {
  return readdir(folder, { recursive: true });
}

export type FileCounts = Readonly<Record<Role, number>>;

export async function countFiles(daemon: FaasnetDaemon): Promise<FileCounts> {
  const roles = await soleRoles(daemon);
  const count = async (role: Role): Promise<number> => (await openFiles(roles[role])).length;
  return {
    main: await count("main"),
    "image-service": await count("image-service"),
    keeper: await count("keeper"),
  };
}

/** No image, no container: what is left over, in words. */
export async function leaksOfIdle(daemon: FaasnetDaemon, fresh: FileCounts): Promise<string[]> {
  const found: string[] = [];
  found.push(...(await mountsLeft(daemon)), ...(await loopsLeft(daemon)));
  found.push(...(await processesLeft(daemon)), ...(await filesLeft(daemon)));
  found.push(...(await descriptorsLeft(daemon, fresh)), ...(await quotaExceeded(daemon)));
  return found;
}

/** After a clean stop. */
export async function leaksOfStopped(daemon: FaasnetDaemon): Promise<string[]> {
  const { pids, others } = await livingRoles(daemon);
  const running = [...Object.values(pids).flat().map(String), ...others];
  const names = await under(daemon.state);
  return [
    ...(await mountsLeft(daemon)),
    ...(await loopsLeft(daemon)),
    ...running.map((entry) => `process ${entry}`),
    ...names.filter((name) => !STOPPED_FILES.test(name)).map((name) => `STATE/${name}`),
  ];
}

async function mountsLeft(daemon: FaasnetDaemon): Promise<string[]> {
  const left = await mountsUnder(daemon.folder);
  return left.map(({ type, path }) => `mount ${type} ${path}`);
}

async function loopsLeft(daemon: FaasnetDaemon): Promise<string[]> {
  const found: string[] = [];
  for (const name of await readdir("/sys/block")) {
    if (!name.startsWith("loop")) continue;
    const file = `/sys/block/${name}/loop/backing_file`;
    const backing = await readFile(file, "utf8").catch(() => "");
    if (backing.startsWith(daemon.folder)) found.push(`${name} over ${backing.trim()}`);
  }
  return found;
}

async function processesLeft(daemon: FaasnetDaemon): Promise<string[]> {
  const { pids, others } = await livingRoles(daemon);
  const many = ROLES.filter((role) => pids[role].length !== 1);
  return [
    ...many.map((role) => `${pids[role].length} processes are ${role}`),
    ...others.map((entry) => `process ${entry}`),
  ];
}

async function filesLeft(daemon: FaasnetDaemon): Promise<string[]> {
  const state = (await under(daemon.state)).filter((name) => !STATE_FILES.test(name));
  const root = (await under(daemon.root)).filter((name) => !ROOT_FILES.test(name));
  return [...state.map((name) => `STATE/${name}`), ...root.map((name) => `ROOT/${name}`)];
}

async function descriptorsLeft(daemon: FaasnetDaemon, fresh: FileCounts): Promise<string[]> {
  const found: string[] = [];
  const roles = await soleRoles(daemon);
  const layers = (await readdir(join(daemon.root, "layers"))).length;
  for (const role of ROLES) {
    const files = await openFiles(roles[role]);
    const kept = role === "image-service" ? layers * FILES_PER_LAYER : 0;
    const max = fresh[role] + MORE_FILES_MAX + kept;
    if (files.length > max) found.push(`${role} has ${files.length} files open, over ${max}`);
    for (const file of files) if (file.endsWith(" (deleted)")) found.push(`${role} holds ${file}`);
  }
  return found;
}

async function quotaExceeded(daemon: FaasnetDaemon): Promise<string[]> {
  const { cache } = await askStatus(daemon);
  const folder = join(daemon.root, "cache");
  let bytes = 0;
  for (const name of await under(folder)) {
    const found = await stat(join(folder, name)).catch(() => undefined);
    if (found?.isFile() === true) bytes += found.blocks * BLOCK_BYTES;
  }
  const max = cache.quotaBytes + ALLOCATION_SLACK_BYTES;
  const size = `${bytes} bytes on disk, ${cache.usedBytes} counted`;
  return bytes > max || cache.usedBytes > cache.quotaBytes
    ? [`cache over its quota of ${cache.quotaBytes}: ${size}`]
    : [];
}
