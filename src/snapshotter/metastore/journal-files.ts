/** The file operations that the journal needs, injected so that tests can crash at every byte. */
import { open, readFile, rename, rm } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { systemErrorName } from "../../base/errors.ts";
import { writeAll } from "../../base/write-all.ts";

export interface JournalFile {
  /** Writes all of it. */
  write(bytes: Uint8Array, position: number): Promise<void>;
  truncate(bytes: number): Promise<void>;
  /** Content and size are on the disk when it resolves. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

/** Files of one folder, by name. */
export interface JournalFiles {
  /** Undefined when there is none. */
  read(name: string): Promise<Buffer | undefined>;
  openExisting(name: string): Promise<JournalFile>;
  /** Empty, even if there was one. */
  create(name: string): Promise<JournalFile>;
  rename(from: string, to: string): Promise<void>;
  /** Also when there is none. */
  remove(name: string): Promise<void>;
  /** Creations, renames and removals are on the disk when it resolves. */
  syncFolder(): Promise<void>;
}

class DiskJournalFile implements JournalFile {
  readonly #handle: FileHandle;

  constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    await writeAll(this.#handle, bytes, position);
  }

  async truncate(bytes: number): Promise<void> {
    await this.#handle.truncate(bytes);
  }

  async sync(): Promise<void> {
    // fdatasync(2) also writes the size, which is needed to read the data back.
    await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** `folder` must exist. */
export function diskJournalFiles(folder: string): JournalFiles {
  return {
    read: async (name) => {
      try {
        return await readFile(join(folder, name));
      } catch (error) {
        if (systemErrorName(error) === "ENOENT") return undefined;
        throw error;
      }
    },
    openExisting: async (name) => new DiskJournalFile(await open(join(folder, name), "r+", 0o600)),
    create: async (name) => new DiskJournalFile(await open(join(folder, name), "w", 0o600)),
    rename: async (from, to) => {
      await rename(join(folder, from), join(folder, to));
    },
    remove: async (name) => {
      await rm(join(folder, name), { force: true });
    },
    syncFolder: async () => {
      const handle = await open(folder, "r");
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    },
  };
}
