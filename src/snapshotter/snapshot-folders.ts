/**
 * The folders of local snapshots: `snapshots/ID/{fs,work}`. One is made under another name and
 * renamed when it is whole; a removed one is renamed away at once and deleted later.
 */
import { chmod, chown, mkdir, open, readdir, rename, stat } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorName, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import type { RootOwner } from "./mounts.ts";
import { removeTree } from "./tree-scan.ts";

const NEW_PREFIX = "new-";
const TRASH_PREFIX = "trash-";

export interface RootAttributes extends RootOwner {
  /** Permission bits. */
  readonly mode: number;
}

/** Source: containerd's overlay snapshotter: what a snapshot without parents starts with. */
export const DEFAULT_ROOT: RootAttributes = { uid: 0, gid: 0, mode: 0o755 };

export class SnapshotFolders {
  readonly #root: string;
  readonly #log: Logger;
  /** Names that have no durable record yet, and are no rubbish all the same. */
  readonly #inCreation = new Set<string>();
  #trashed = 0;

  constructor(root: string, log: Logger) {
    this.#root = root;
    this.#log = log;
  }

  upper(id: number): string {
    return join(this.#root, String(id), "fs");
  }

  work(id: number): string {
    return join(this.#root, String(id), "work");
  }

  /** Makes the folder; until `settle(id)` it is kept without a record. */
  async create(
    id: number,
    options: { readonly withWork: boolean; readonly attributes: RootAttributes },
  ): Promise<void> {
    const draft = join(this.#root, `${NEW_PREFIX}${id}`);
    this.#inCreation.add(String(id)).add(`${NEW_PREFIX}${id}`);
    try {
      await mkdir(draft, { mode: 0o700 });
      const upper = join(draft, "fs");
      await mkdir(upper, { mode: 0o755 });
      const { uid, gid, mode } = options.attributes;
      await chown(upper, uid, gid);
      // After chown, which clears set-id bits; mkdir was subject to the umask.
      await chmod(upper, mode);
      if (options.withWork) await mkdir(join(draft, "work"), { mode: 0o711 });
      await rename(draft, join(this.#root, String(id)));
      await this.#sync();
    } catch (error) {
      throw withContext(error, `cannot create the folder of snapshot ${id}`);
    }
  }

  /** The snapshot has a record now, or never will: then what there is of it is trashed. */
  async settle(id: number, outcome: "recorded" | "abandoned"): Promise<void> {
    if (outcome === "abandoned") {
      await this.#trash(`${NEW_PREFIX}${id}`);
      await this.#trash(String(id));
    }
    this.#inCreation.delete(String(id));
    this.#inCreation.delete(`${NEW_PREFIX}${id}`);
  }

  /** Who owns the root of a folder (a snapshot's upper, or a mounted chain), and its mode. */
  async rootAttributes(path: string): Promise<RootAttributes> {
    try {
      const { uid, gid, mode } = await stat(path);
      return { uid, gid, mode: mode & 0o7777 };
    } catch (error) {
      throw withContext(error, `cannot read the parent's root ${path}`, "unavailable");
    }
  }

  /** Renames the folder away; quick. A failure is left to the next `sweep`. */
  async trash(id: number): Promise<void> {
    await this.#trash(String(id));
  }

  /** Renames everything away that `isKept` does not know. */
  async sweep(isKept: (id: number) => boolean): Promise<void> {
    for (const name of await readdir(this.#root)) {
      if (name.startsWith(TRASH_PREFIX) || this.#inCreation.has(name)) continue;
      if (/^\d+$/.test(name) && isKept(Number(name))) continue;
      await this.#trash(name);
    }
  }

  /** Deletes what was renamed away. A folder that resists is logged and left. */
  async emptyTrash({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    for (const name of await readdir(this.#root)) {
      if (!name.startsWith(TRASH_PREFIX)) continue;
      try {
        await removeTree(join(this.#root, name), { signal });
      } catch (error) {
        if (signal.aborted) throw error;
        this.#log.warn("snapshot-folder-not-deleted", { folder: name, err: error });
      }
    }
  }

  async #trash(name: string): Promise<void> {
    for (;;) {
      this.#trashed += 1;
      const target = join(this.#root, `${TRASH_PREFIX}${name}-${this.#trashed}`);
      try {
        await rename(join(this.#root, name), target);
        return;
      } catch (error) {
        const reason = systemErrorName(error);
        if (reason === "ENOENT") return;
        // An earlier run of the daemon left one of that name.
        if (reason === "ENOTEMPTY" || reason === "EEXIST") continue;
        this.#log.warn("snapshot-folder-not-trashed", { folder: name, err: error });
        return;
      }
    }
  }

  /** A record must never be more durable than its folder. */
  async #sync(): Promise<void> {
    const handle = await open(this.#root, "r");
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
}
