/** Mounts below the state folder that were left by a process that was killed; never touched. */
import { rmdir } from "node:fs/promises";
import { join } from "node:path";
import { DaemonError } from "../base/errors.ts";
import { mountAt, readMountInfo } from "../base/mountinfo.ts";
import { namesIn } from "../base/names-in.ts";
import { unmount } from "../base/native.ts";
import { EROFS_FS_TYPE, KEEPER_FS_TYPE } from "./mount-table.ts";

/** Dead mounts stacked on one mountpoint that are cleared. */
const STACKED_MOUNTS_MAX = 64;
/** Chains first: they pin the layers' devices. */
const FOLDERS = ["c", "l"];

/** Lazily unmounts our own earlier mounts on the path; anything else there is refused. */
export async function clearMounts(path: string): Promise<void> {
  for (let count = 0; count < STACKED_MOUNTS_MAX; count += 1) {
    const mount = mountAt(await readMountInfo(), path);
    if (mount === undefined) return;
    if (mount.fsType !== EROFS_FS_TYPE && mount.fsType !== KEEPER_FS_TYPE) {
      throw new DaemonError("failed-precondition", `${path} is a mountpoint of ${mount.fsType}`);
    }
    await unmount(path, { detach: true });
  }
  throw new DaemonError("failed-precondition", `${path}: too many stacked mounts`);
}

/**
 * Clears the mountpoints of chains and layers that `isKnown` does not know: their process was
 * killed between a mount and its record, or between an unmount and that of the folder. Nobody was
 * ever told of them; a container on one, should there be any, keeps it until it ends.
 */
export async function clearStaleMounts(
  stateDir: string,
  isKnown: (path: string) => boolean,
): Promise<void> {
  for (const folder of FOLDERS) {
    for (const name of await namesIn(join(stateDir, folder))) {
      const path = join(stateDir, folder, name);
      if (isKnown(path)) continue;
      await clearMounts(path);
      await rmdir(path).catch(() => undefined);
    }
  }
}
