/**
 * What belongs to one containerd: the metastore and the folders of its local snapshots.
 * ROOT/metastore/journal, ROOT/snapshots/, and what was set aside in ROOT/set-aside/.
 */
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../base/clock.ts";
import { systemErrorName, withContext } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { diskJournalFiles } from "./metastore/journal-files.ts";
import { JOURNAL_NAME } from "./metastore/journal.ts";
import { Metastore } from "./metastore/metastore.ts";
import { setAsideFolder } from "./set-aside.ts";
import { SnapshotFolders } from "./snapshot-folders.ts";

export interface StoreOptions {
  readonly root: string;
  readonly clock: Clock;
  readonly log: Logger;
}

export class Store implements AsyncDisposable {
  readonly metastore: Metastore;
  readonly folders: SnapshotFolders;
  readonly #options: StoreOptions;

  private constructor(options: StoreOptions, metastore: Metastore, folders: SnapshotFolders) {
    this.#options = options;
    this.metastore = metastore;
    this.folders = folders;
  }

  /** Folders without a record (a crash between the two) are trashed, not yet deleted. */
  static async open(options: StoreOptions): Promise<Store> {
    const { root, clock, log } = options;
    const metastoreFolder = join(root, "metastore");
    const snapshots = join(root, "snapshots");
    await mkdir(metastoreFolder, { recursive: true, mode: 0o700 });
    await mkdir(snapshots, { recursive: true, mode: 0o700 });
    const files = diskJournalFiles(metastoreFolder);
    const metastore = await Metastore.open({ files, clock, log });
    const folders = new SnapshotFolders(snapshots, log);
    const ids = new Set<number>();
    for (const record of metastore.records()) ids.add(record.id);
    await folders.sweep((id) => ids.has(id));
    return new Store(options, metastore, folders);
  }

  /**
   * Puts this containerd's snapshots where nothing looks for them (running containers keep what
   * they have mounted) and opens an empty store. This one is closed.
   */
  async setAside(): Promise<Store> {
    const { root, clock, log } = this.#options;
    const { owner, size } = this.metastore;
    await this[Symbol.asyncDispose]();
    const target = setAsideFolder(root, owner, clock);
    try {
      await mkdir(target, { recursive: true, mode: 0o700 });
      // The folders first: after a crash between the two the journal still says whose it is, so
      // the rest is done at the next start. The other way round the folders would be rubbish.
      await moveIfPresent(join(root, "snapshots"), join(target, "snapshots"));
      await moveIfPresent(join(root, "metastore", JOURNAL_NAME), join(target, JOURNAL_NAME));
    } catch (error) {
      throw withContext(error, `cannot set the old snapshots aside in ${target}`, "unavailable");
    }
    log.warn("snapshots-set-aside", { owner, snapshots: size, folder: target });
    return Store.open(this.#options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.metastore[Symbol.asyncDispose]();
  }
}

async function moveIfPresent(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if (systemErrorName(error) !== "ENOENT") throw error;
  }
}
