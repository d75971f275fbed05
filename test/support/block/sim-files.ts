/**
 * Files in memory that know what is on the disk and what only in the page cache, and that stop at
 * any operation: a killed process keeps all of its writes, a power cut keeps of the unsynced ones
 * whatever chance keeps, sector by sector.
 */
import { DaemonError } from "../../../src/base/errors.ts";
import type { CacheFile, CacheFiles, CacheFileStat } from "../../../src/cache/index.ts";

const SECTOR = 64;

interface Write {
  readonly position: number;
  readonly bytes: Buffer;
}

interface SimInode {
  /** What readers see. */
  bytes: Buffer;
  /** What is on the disk. */
  durable: Buffer;
  unsynced: Write[];
  modifiedMs: number;
  punched: number;
}

/** Where and how the machine stops. */
export interface Crash {
  /** Number of the operation that does not happen (or happens in part). */
  readonly atOperation: number;
  /** Of a write that is cut: how much of it happens, 0…1. */
  readonly part: number;
}

export class SimFiles implements CacheFiles {
  #inodes = new Map<string, SimInode>();
  #durableNames = new Map<string, SimInode>();
  operations = 0;
  /** Starts of the machine: files opened before the last one belong to a dead process. */
  #start = 0;
  crash: Crash | undefined;
  isDown = false;
  freeSpace = Infinity;
  /** Called before a hole is punched. */
  onPunch: (path: string, offset: number, length: number) => void = () => undefined;
  /** Called before each write: throw to fail. */
  onWrite: (path: string, bytes: Uint8Array, position: number) => void = () => undefined;
  failPunch = false;

  /** The bytes that readers of the path see. */
  bytesOf(path: string): Buffer | undefined {
    return this.#inodes.get(path)?.bytes;
  }

  /** Bytes handed to `writeAt` and not punched, over all files below the folder. */
  get paths(): string[] {
    return [...this.#inodes.keys()];
  }

  /** Starts again after a kill: nothing is lost. */
  afterKill(): void {
    this.#start += 1;
    this.isDown = false;
    this.crash = undefined;
  }

  /** Starts again after a power cut; `chance` says of each unsynced sector whether it survived. */
  afterPowerCut(chance: () => boolean): void {
    const inodes = new Map<string, SimInode>();
    for (const [path, inode] of this.#durableNames) inodes.set(path, inode);
    for (const [path, inode] of this.#inodes) {
      // A name that was never synced may have survived all the same.
      if (!inodes.has(path) && chance()) inodes.set(path, inode);
    }
    for (const inode of new Set(inodes.values())) {
      let disk: Buffer = Buffer.from(inode.durable);
      for (const { position, bytes } of inode.unsynced) {
        for (let at = 0; at < bytes.length; at += SECTOR) {
          if (!chance()) continue;
          const piece = bytes.subarray(at, at + SECTOR);
          disk = grown(disk, position + at + piece.length);
          disk.set(piece, position + at);
        }
      }
      inode.bytes = disk;
      inode.durable = Buffer.from(disk);
      inode.unsynced = [];
    }
    this.#inodes = inodes;
    this.#durableNames = new Map(inodes);
    this.#start += 1;
    this.isDown = false;
    this.crash = undefined;
  }

  async makeFolder(): Promise<void> {
    await this.#step();
  }

  async list(folder: string): Promise<string[]> {
    await this.#step();
    const prefix = `${folder}/`;
    return [...this.#inodes.keys()]
      .filter((path) => path.startsWith(prefix))
      .map((path) => path.slice(prefix.length))
      .filter((name) => !name.includes("/"));
  }

  async open(path: string): Promise<CacheFile> {
    await this.#step();
    let inode = this.#inodes.get(path);
    if (inode === undefined) {
      const bytes = Buffer.alloc(0);
      inode = { bytes, durable: Buffer.alloc(0), unsynced: [], modifiedMs: 0, punched: 0 };
      this.#inodes.set(path, inode);
    }
    return this.#file(path, inode);
  }

  async stat(path: string): Promise<CacheFileStat | undefined> {
    await this.#step();
    const inode = this.#inodes.get(path);
    return inode === undefined ? undefined : statOf(inode);
  }

  async readText(path: string): Promise<string | undefined> {
    await this.#step();
    return this.#inodes.get(path)?.bytes.toString("utf8");
  }

  async replaceText(path: string, text: string): Promise<void> {
    await this.#step();
    const bytes = Buffer.from(text);
    const inode = { bytes, durable: bytes, unsynced: [], modifiedMs: 0, punched: 0 };
    this.#inodes.set(path, inode);
    this.#durableNames.set(path, inode);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#step();
    const inode = this.#inodes.get(from);
    if (inode === undefined) throw new DaemonError("not-found", from);
    this.#inodes.delete(from);
    this.#inodes.set(to, inode);
  }

  async remove(path: string): Promise<void> {
    await this.#step();
    this.#inodes.delete(path);
  }

  async syncFolder(folder: string): Promise<void> {
    await this.#step();
    const isInside = (path: string): boolean => path.startsWith(`${folder}/`);
    for (const path of [...this.#durableNames.keys()]) {
      if (isInside(path) && !this.#inodes.has(path)) this.#durableNames.delete(path);
    }
    for (const [path, inode] of this.#inodes) {
      if (isInside(path)) this.#durableNames.set(path, inode);
    }
  }

  async freeBytes(): Promise<number> {
    await this.#step();
    return this.freeSpace;
  }

  #file(path: string, inode: SimInode): CacheFile {
    const start = this.#start;
    const step = async (kind?: "write"): Promise<(length: number) => number> => {
      if (start !== this.#start) throw stopped();
      return this.#step(kind);
    };
    return {
      readAt: async (position, length) => {
        await step();
        if (position + length > inode.bytes.length) {
          throw new DaemonError("data-loss", `${path} ends at ${inode.bytes.length}`);
        }
        return Buffer.from(inode.bytes.subarray(position, position + length));
      },
      writeAt: async (bytes, position) => {
        const part = await step("write");
        this.onWrite(path, bytes, position);
        this.#apply(inode, { position, bytes: Buffer.from(bytes).subarray(0, part(bytes.length)) });
        if (this.isDown) throw stopped();
      },
      sync: async () => {
        await step();
        inode.durable = Buffer.from(inode.bytes);
        inode.unsynced = [];
      },
      punch: async (offset, length) => {
        await step();
        if (this.failPunch) throw new DaemonError("unimplemented", "EOPNOTSUPP");
        this.onPunch(path, offset, length);
        const end = Math.min(offset + length, inode.bytes.length);
        if (end > offset)
          this.#apply(inode, { position: offset, bytes: Buffer.alloc(end - offset) });
      },
      truncate: async (sizeBytes) => {
        await step();
        const old = inode.bytes.subarray(0, sizeBytes);
        inode.bytes = Buffer.concat([old, Buffer.alloc(Math.max(0, sizeBytes - old.length))]);
        // Sizes are journalled: a shorter file is never long again with its old bytes.
        inode.durable = Buffer.from(inode.durable.subarray(0, sizeBytes));
        inode.unsynced = inode.unsynced.flatMap(({ position, bytes }) => {
          const kept = bytes.subarray(0, Math.max(0, sizeBytes - position));
          return kept.length === 0 ? [] : [{ position, bytes: kept }];
        });
        if (sizeBytes > inode.durable.length) inode.durable = grown(inode.durable, sizeBytes);
      },
      setModifiedTime: async (timeMs) => {
        await step();
        inode.modifiedMs = timeMs;
      },
      stat: async () => {
        await step();
        return statOf(inode);
      },
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }

  #apply(inode: SimInode, write: Write): void {
    inode.bytes = grown(inode.bytes, write.position + write.bytes.length);
    inode.bytes.set(write.bytes, write.position);
    inode.unsynced.push(write);
  }

  /** One operation; the one that the crash names happens in part (writes) or not at all. */
  async #step(kind?: "write"): Promise<(length: number) => number> {
    await Promise.resolve();
    if (this.isDown) throw stopped();
    this.operations += 1;
    const { crash } = this;
    if (crash === undefined || this.operations < crash.atOperation) return (length) => length;
    this.isDown = true;
    if (kind !== "write") throw stopped();
    return (length) => Math.floor(length * crash.part);
  }
}

function stopped(): DaemonError {
  return new DaemonError("internal", "the machine has stopped");
}

function grown(bytes: Buffer, length: number): Buffer {
  if (bytes.length >= length) return bytes;
  return Buffer.concat([bytes, Buffer.alloc(length - bytes.length)]);
}

/** Allocation in units of 4096, as of blocks that hold anything but zeros. */
function statOf(inode: SimInode): CacheFileStat {
  let allocatedBytes = 0;
  for (let at = 0; at < inode.bytes.length; at += 4096) {
    if (inode.bytes.subarray(at, at + 4096).some((byte) => byte !== 0)) allocatedBytes += 4096;
  }
  return { sizeBytes: inode.bytes.length, allocatedBytes, modifiedMs: inode.modifiedMs };
}
