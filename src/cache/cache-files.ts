/** The file operations that the cache uses, as an interface: tests crash between any two. */
import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { DaemonError, systemErrorName } from "../base/errors.ts";
import { writeAll } from "../base/write-all.ts";

export interface CacheFile extends AsyncDisposable {
  /** Exactly `length` bytes; `data-loss` when the file is shorter. */
  readAt(position: number, length: number): Promise<Buffer>;
  /** All of the bytes or an error. */
  writeAt(bytes: Uint8Array, position: number): Promise<void>;
  /** Data, and what is needed to find it, are on the disk (fdatasync). */
  sync(): Promise<void>;
  /** Frees whole file system blocks inside the range and zeroes the rest of it. */
  punch(offset: number, length: number): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  setModifiedTime(timeMs: number): Promise<void>;
  stat(): Promise<CacheFileStat>;
}

export interface CacheFileStat {
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
  readonly modifiedMs: number;
}

/** Errors are system errors with their errno name as `code`, except where said. */
export interface CacheFiles {
  makeFolder(path: string): Promise<void>;
  list(folder: string): Promise<string[]>;
  /** For reading and writing; made when missing. */
  open(path: string): Promise<CacheFile>;
  stat(path: string): Promise<CacheFileStat | undefined>;
  /** Undefined when missing. */
  readText(path: string): Promise<string | undefined>;
  /** Whole or not at all, and durable: a temporary file, renamed, the folder synced. */
  replaceText(path: string, text: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** A missing file is no error. */
  remove(path: string): Promise<void>;
  syncFolder(folder: string): Promise<void>;
  /** Bytes of the file system that are free for us. */
  freeBytes(path: string): Promise<number>;
}

/** `fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)`, off the event loop. */
export type PunchHole = (fd: number, offset: number, length: number) => Promise<void>;

const SESSION_BYTES_MAX = 16 * 1024 * 1024;

class NodeCacheFile implements CacheFile {
  readonly #handle: FileHandle;
  readonly #path: string;
  readonly #punchHole: PunchHole;

  constructor(handle: FileHandle, path: string, punchHole: PunchHole) {
    this.#handle = handle;
    this.#path = path;
    this.#punchHole = punchHole;
  }

  async readAt(position: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafeSlow(length);
    let done = 0;
    while (done < length) {
      const { bytesRead } = await this.#handle.read(buffer, done, length - done, position + done);
      if (bytesRead === 0) {
        const text = `${this.#path} ends at ${position + done} of ${position + length} bytes`;
        throw new DaemonError("data-loss", text);
      }
      done += bytesRead;
    }
    return buffer;
  }

  async writeAt(bytes: Uint8Array, position: number): Promise<void> {
    await writeAll(this.#handle, bytes, position);
  }

  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  async punch(offset: number, length: number): Promise<void> {
    if (length > 0) await this.#punchHole(this.#handle.fd, offset, length);
  }

  async truncate(sizeBytes: number): Promise<void> {
    await this.#handle.truncate(sizeBytes);
  }

  async setModifiedTime(timeMs: number): Promise<void> {
    await this.#handle.utimes(timeMs / 1000, timeMs / 1000);
  }

  async stat(): Promise<CacheFileStat> {
    return toStat(await this.#handle.stat());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#handle.close();
  }
}

/** The real file system. */
export function nodeCacheFiles(punchHole: PunchHole): CacheFiles {
  const open = async (path: string): Promise<CacheFile> => {
    const handle = await fs.open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    return new NodeCacheFile(handle, path, punchHole);
  };
  const syncFolder = async (folder: string): Promise<void> => {
    await using handle = await fs.open(folder, constants.O_RDONLY | constants.O_DIRECTORY);
    await handle.sync();
  };
  return {
    makeFolder: async (path) => {
      await fs.mkdir(path, { recursive: true, mode: 0o700 });
    },
    list: (folder) => fs.readdir(folder),
    open,
    stat: (path) => orMissing(async () => toStat(await fs.stat(path))),
    readText: (path) =>
      orMissing(async () => {
        const { size } = await fs.stat(path);
        if (size > SESSION_BYTES_MAX) return "";
        return fs.readFile(path, "utf8");
      }),
    replaceText: async (path, text) => {
      const temporary = `${path}.new`;
      await fs.writeFile(temporary, text, { mode: 0o600, flush: true });
      await fs.rename(temporary, path);
      await syncFolder(dirname(path));
    },
    rename: (from, to) => fs.rename(from, to),
    remove: async (path) => {
      await orMissing(() => fs.unlink(path));
    },
    syncFolder,
    freeBytes: async (path) => {
      const { bavail, bsize } = await fs.statfs(path);
      return bavail * bsize;
    },
  };
}

/** Changes with every boot: what was written before it may have been lost with the power. */
export async function readBootId(): Promise<string> {
  return (await fs.readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
}

async function orMissing<T>(work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (systemErrorName(error) === "ENOENT") return undefined;
    throw error;
  }
}

function toStat(stats: {
  readonly size: number;
  readonly blocks: number;
  readonly mtimeMs: number;
}): CacheFileStat {
  return {
    sizeBytes: stats.size,
    allocatedBytes: stats.blocks * 512,
    modifiedMs: stats.mtimeMs,
  };
}
