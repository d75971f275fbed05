/**
 * The cache's files on a simulated disk. Every operation takes at least one turn, and those that a
 * kill may cut in the middle take several; whoever hands out the turns decides what comes between.
 */
import { DaemonError } from "../../../src/base/errors.ts";
import type { CacheFile, CacheFiles, CacheFileStat } from "../../../src/cache/index.ts";
import { SimDisk, systemError } from "../crash/sim-disk.ts";
import type { Inode } from "../crash/sim-disk.ts";

export class SimFiles implements CacheFiles {
  disk: SimDisk;
  readonly #turn: () => Promise<void>;
  freeSpace = Infinity;
  /** Called before a hole is punched. */
  onPunch: (path: string, offset: number, length: number) => void = () => undefined;
  /** Called before each write: throw to fail. */
  onWrite: (path: string, bytes: Uint8Array, position: number) => void = () => undefined;
  /** Called before each fdatasync: throw to fail, then nothing unsynced reaches the disk. */
  onSync: (path: string) => void = () => undefined;
  failPunch = false;

  constructor(disk = new SimDisk(), turn: () => Promise<void> = () => Promise.resolve()) {
    this.disk = disk;
    this.#turn = turn;
  }

  /** The bytes that readers of the path see. */
  bytesOf(path: string): Buffer | undefined {
    return this.disk.inode(path)?.view.bytes;
  }

  /** The power is cut and comes back: everything that was not synced is lost. */
  losePower(): void {
    this.disk = SimDisk.withoutUnsynced(this.disk.snapshot());
  }

  get paths(): string[] {
    return [...this.disk.names].filter(([, { isFolder }]) => !isFolder).map(([path]) => path);
  }

  async makeFolder(path: string): Promise<void> {
    await this.#turn();
    this.disk.makeFolder(path);
  }

  async list(folder: string): Promise<string[]> {
    await this.#turn();
    return this.disk.list(folder);
  }

  async open(path: string): Promise<CacheFile> {
    await this.#turn();
    return this.#file(path, this.disk.open(path));
  }

  async stat(path: string): Promise<CacheFileStat | undefined> {
    await this.#turn();
    const inode = this.disk.inode(path);
    return inode === undefined ? undefined : statOf(inode);
  }

  async readText(path: string): Promise<string | undefined> {
    await this.#turn();
    return this.bytesOf(path)?.toString("utf8");
  }

  /** As `nodeCacheFiles` does it, step by step. */
  async replaceText(path: string, text: string): Promise<void> {
    await this.#turn();
    const temporary = this.disk.open(`${path}.new`);
    this.disk.change(temporary, { kind: "truncate", size: 0 });
    await this.#write(temporary, Buffer.from(text), 0);
    await this.#sync(temporary);
    await this.rename(`${path}.new`, path);
    await this.syncFolder(path.slice(0, path.lastIndexOf("/")));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#turn();
    this.disk.rename(from, to);
  }

  async remove(path: string): Promise<void> {
    await this.#turn();
    this.disk.unlink(path);
  }

  async syncFolder(folder: string): Promise<void> {
    await this.#turn();
    const finish = this.disk.beginFolderSync(folder);
    await this.#turn();
    finish();
  }

  async freeBytes(): Promise<number> {
    await this.#turn();
    return this.freeSpace;
  }

  #file(path: string, inode: Inode): CacheFile {
    const { disk } = this;
    return {
      readAt: async (position, length) => {
        await this.#turn();
        if (position + length > inode.view.size) {
          throw new DaemonError("data-loss", `${path} ends at ${inode.view.size}`);
        }
        return Buffer.from(inode.view.bytes.subarray(position, position + length));
      },
      writeAt: async (bytes, position) => {
        await this.#turn();
        this.onWrite(path, bytes, position);
        await this.#write(inode, Buffer.from(bytes), position);
      },
      sync: async () => {
        await this.#turn();
        try {
          this.onSync(path);
        } catch (error) {
          disk.loseWrites(inode);
          throw error;
        }
        await this.#sync(inode);
      },
      punch: async (offset, length) => {
        await this.#turn();
        if (this.failPunch) throw systemError("EOPNOTSUPP", path);
        if (length === 0) return;
        this.onPunch(path, offset, length);
        disk.change(inode, { kind: "punch", start: offset, end: offset + length });
      },
      truncate: async (size) => {
        await this.#turn();
        disk.change(inode, { kind: "truncate", size });
      },
      setModifiedTime: async (timeMs) => {
        await this.#turn();
        inode.modifiedMs = timeMs;
      },
      stat: async () => {
        await this.#turn();
        return statOf(inode);
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }

  /** In two pieces: what a kill, or a reader, may find in between. */
  async #write(inode: Inode, bytes: Buffer, position: number): Promise<void> {
    const half = bytes.length >> 1;
    this.disk.change(inode, { kind: "write", position, bytes: bytes.subarray(0, half) });
    await this.#turn();
    const rest = bytes.subarray(half);
    this.disk.change(inode, { kind: "write", position: position + half, bytes: rest });
  }

  async #sync(inode: Inode): Promise<void> {
    const finish = this.disk.beginSync(inode);
    await this.#turn();
    finish();
  }
}

function statOf({ view, modifiedMs }: Inode): CacheFileStat {
  return { sizeBytes: view.size, allocatedBytes: view.allocatedBytes, modifiedMs };
}
