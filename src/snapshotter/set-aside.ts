/**
 * What was set aside for another containerd: kept for a while, in case that was a mistake, and as
 * long as a container of the old one still has it mounted. Then it is deleted.
 */
import { readdir, readFile, readlink, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { throwIfAborted } from "../base/abort.ts";
import type { Clock } from "../base/clock.ts";
import type { Logger } from "../base/log.ts";
import { parseMountInfo } from "../base/mountinfo.ts";
import { namesIn } from "../base/names-in.ts";
import { SET_ASIDE_KEPT_MS } from "./limits.ts";
import { removeTree } from "./tree-scan.ts";

const FOLDER = "set-aside";
const NS_PER_MS = 1_000_000n;

/** `owner` is the containerd that it belonged to. */
export function setAsideFolder(root: string, owner: string | undefined, clock: Clock): string {
  return join(root, FOLDER, `${owner ?? "unknown"}-${clock.wallNs()}`);
}

export async function deleteSetAside(
  root: string,
  options: { readonly clock: Clock; readonly log: Logger; readonly signal: AbortSignal },
): Promise<void> {
  const { clock, log, signal } = options;
  for (const name of await namesIn(join(root, FOLDER))) {
    const since = /-(\d+)$/.exec(name)?.[1];
    if (since === undefined) continue; // not ours
    if ((clock.wallNs() - BigInt(since)) / NS_PER_MS < BigInt(SET_ASIDE_KEPT_MS)) continue;
    const folder = join(root, FOLDER, name);
    const ids = (await namesIn(join(folder, "snapshots"))).filter((id) => /^\d+$/.test(id));
    if (ids.length > 0 && (await areMounted(join(root, "snapshots"), ids))) continue;
    try {
      await removeTree(folder, { signal });
      log.info("set-aside-deleted", { folder, snapshots: ids.length });
    } catch (error) {
      throwIfAborted(signal);
      log.warn("set-aside-not-deleted", { folder, err: error });
    }
  }
  await rmdir(join(root, FOLDER)).catch(() => undefined); // where it is empty
}

/**
 * Whether an overlay names one of these folders. Mount options keep the path of the beginning, so
 * a new snapshot of the same number counts too: then the folder is kept for longer.
 */
async function areMounted(snapshots: string, ids: readonly string[]): Promise<boolean> {
  const named = new Set(ids);
  for (const text of await mountTables()) {
    for (const { fsType, superOptions } of parseMountInfo(text)) {
      if (fsType !== "overlay") continue;
      for (const [, folder, id = ""] of superOptions.matchAll(/([^,:=]*?)(\d+)\/(?:fs|work)\b/g)) {
        // containerd shortens long lists: a folder relative to one that is not recorded.
        const isOurs = folder === "" || folder === `${snapshots}/`;
        if (isOurs && named.has(id)) return true;
      }
    }
  }
  return false;
}

/** Of all mount namespaces: a containerd may run in one of its own. */
async function mountTables(): Promise<readonly string[]> {
  const tables = new Map<string, string>();
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const namespace = await readlink(`/proc/${name}/ns/mnt`).catch(() => undefined);
    if (namespace === undefined || tables.has(namespace)) continue;
    const text = await readFile(`/proc/${name}/mountinfo`, "utf8").catch(() => undefined);
    if (text !== undefined) tables.set(namespace, text);
  }
  return [...tables.values()];
}
