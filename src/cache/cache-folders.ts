/** Where the cache's files lie, and what is found there at the start. */
import { join } from "node:path";
import { DaemonError } from "../base/errors.ts";
import type { CacheFiles } from "./cache-files.ts";
import type { CacheQuota } from "./cache-quota.ts";
import { ALLOCATION_BYTES, LAYER_BLOCKS_MAX, LAYERS_MAX } from "./limits.ts";
import { countPresent, PRESENCE_HEADER_BYTES } from "./presence-file.ts";
import type { StoreKind } from "./presence-file.ts";

const KINDS: readonly StoreKind[] = ["decoded", "blobs"];
/** Length of the longest bitmap. */
const PRESENCE_BYTES_MAX = PRESENCE_HEADER_BYTES + LAYER_BLOCKS_MAX / 8;
const PRESENCE_SUFFIX = ".present";

export function isLayerId(name: string): boolean {
  return /^[0-9a-f]{64}$/.test(name);
}

export class CacheFolders {
  readonly #files: CacheFiles;
  readonly #root: string;
  readonly #quota: CacheQuota;
  /** Dormant files being evicted. */
  readonly #leaving = new Map<string, Promise<void>>();
  readonly #useTimes = new Map<string, number>();

  constructor(files: CacheFiles, root: string, quota: CacheQuota) {
    this.#files = files;
    this.#root = root;
    this.#quota = quota;
  }

  /** Makes the folders and proves that holes can be punched there. */
  static async make(files: CacheFiles, root: string): Promise<void> {
    for (const name of [...KINDS, "fill"]) await files.makeFolder(join(root, name));
    const path = join(root, "probe");
    try {
      await using file = await files.open(path);
      await file.writeAt(Buffer.alloc(2 * ALLOCATION_BYTES, 1), 0);
      await file.punch(0, ALLOCATION_BYTES);
      const bytes = await file.readAt(0, 2 * ALLOCATION_BYTES);
      if (bytes[0] !== 0 || bytes[ALLOCATION_BYTES] !== 1) {
        throw new DaemonError("failed-precondition", "a punched hole does not read as zeros");
      }
    } catch (error) {
      const text = `${root} is on a file system where holes cannot be punched (ext4, xfs, btrfs, tmpfs can)`;
      throw new DaemonError("failed-precondition", text, { cause: error });
    } finally {
      await files.remove(path);
    }
  }

  static async layerIds(files: CacheFiles, root: string): Promise<string[]> {
    const ids = (await files.list(join(root, "decoded"))).filter(isLayerId);
    return ids.slice(0, LAYERS_MAX);
  }

  dataPath(kind: StoreKind, layerId: string): string {
    return join(this.#root, kind, layerId);
  }

  presencePath(kind: StoreKind, layerId: string): string {
    return join(this.#root, kind, `${layerId}${PRESENCE_SUFFIX}`);
  }

  fillPath(kind: StoreKind, layerId: string, number: number): string {
    return join(this.#root, "fill", `${layerId}.${number}${kind === "blobs" ? ".blob" : ""}`);
  }

  async sync(kind: StoreKind): Promise<void> {
    await this.#files.syncFolder(join(this.#root, kind));
  }

  /** Registers every layer's files as dormant; removes what a filling pass or a crash left. */
  async scan(): Promise<void> {
    const fillFolder = join(this.#root, "fill");
    for (const name of await this.#files.list(fillFolder)) {
      await this.#files.remove(join(fillFolder, name));
    }
    for (const kind of KINDS) {
      const names = new Set(await this.#files.list(join(this.#root, kind)));
      for (const name of names) {
        if (isLayerId(name)) await this.#addDormant(kind, name);
        else if (!names.has(name.slice(0, -PRESENCE_SUFFIX.length))) {
          await this.#files.remove(join(this.#root, kind, name));
        }
      }
    }
  }

  /** The layer is opened: its files are no longer dormant. The result is its last use. */
  async wake(kind: StoreKind, layerId: string): Promise<number> {
    await this.#leaving.get(`${kind}/${layerId}`)?.catch(() => undefined);
    this.#quota.removeDormant(kind, layerId);
    return this.#useTimes.get(`${kind}/${layerId}`) ?? 0;
  }

  async removePresence(kind: StoreKind, layerId: string): Promise<void> {
    await this.#files.remove(this.presencePath(kind, layerId));
  }

  /** Deletes a closed layer's files: first what calls its blocks present. */
  async remove(layerId: string): Promise<void> {
    for (const kind of KINDS) {
      await this.wake(kind, layerId);
      await this.removePresence(kind, layerId);
    }
    for (const kind of KINDS) {
      await this.sync(kind);
      await this.#files.remove(this.dataPath(kind, layerId));
      this.#useTimes.delete(`${kind}/${layerId}`);
    }
  }

  async #addDormant(kind: StoreKind, layerId: string): Promise<void> {
    const data = await this.#files.stat(this.dataPath(kind, layerId));
    if (data === undefined) return;
    const presence = await this.#files.stat(this.presencePath(kind, layerId));
    const useTimeMs = presence?.modifiedMs ?? 0;
    const blocks = presence === undefined ? 0 : await this.#countBlocks(kind, layerId, presence);
    this.#useTimes.set(`${kind}/${layerId}`, useTimeMs);
    const evict = async (): Promise<void> => {
      const work = this.#evictWhole(kind, layerId, data.sizeBytes);
      this.#leaving.set(`${kind}/${layerId}`, work);
      try {
        await work;
      } finally {
        this.#leaving.delete(`${kind}/${layerId}`);
      }
    };
    this.#quota.addDormant({ kind, layerId, blocks, bytes: data.allocatedBytes, useTimeMs, evict });
  }

  async #countBlocks(
    kind: StoreKind,
    layerId: string,
    { sizeBytes }: { readonly sizeBytes: number },
  ): Promise<number> {
    if (sizeBytes > PRESENCE_BYTES_MAX) return 0;
    await using file = await this.#files.open(this.presencePath(kind, layerId));
    return countPresent(await file.readAt(0, sizeBytes));
  }

  /** The file stays, as one hole: a reader may hold it open and be told of new blocks in it. */
  async #evictWhole(kind: StoreKind, layerId: string, sizeBytes: number): Promise<void> {
    if (kind === "decoded") await this.#quota.drop(layerId, [{ start: 0, end: sizeBytes }]);
    await this.removePresence(kind, layerId);
    await this.sync(kind);
    await using data = await this.#files.open(this.dataPath(kind, layerId));
    await data.punch(0, Math.ceil(sizeBytes / ALLOCATION_BYTES) * ALLOCATION_BYTES);
  }
}
