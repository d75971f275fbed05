/** The journal's folder on a simulated disk, which may err once, or stop for good. */
import { join } from "node:path";
import type {
  JournalFile,
  JournalFiles,
} from "../../../src/snapshotter/metastore/journal-files.ts";
import { SimDisk, systemError } from "../crash/sim-disk.ts";
import type { Inode } from "../crash/sim-disk.ts";

export const FOLDER = "/metastore";

export type JournalOperation = "write" | "sync" | "rename" | "folder";

export class CrashingDisk implements JournalFiles {
  readonly disk: SimDisk;
  /** Thrown once by the next operation of this kind: a disk that errs and lives on. */
  failNext: { readonly operation: JournalOperation; readonly error: Error } | undefined;

  constructor(disk = new SimDisk()) {
    this.disk = disk;
    disk.makeFolder(FOLDER);
  }

  static of(files: ReadonlyMap<string, Buffer>): CrashingDisk {
    const disk = new CrashingDisk();
    for (const [name, bytes] of files) {
      const inode = disk.disk.open(join(FOLDER, name));
      disk.disk.change(inode, { kind: "write", position: 0, bytes });
    }
    disk.disk.syncAll();
    return disk;
  }

  contents(): Map<string, Buffer> {
    const names = this.disk.list(FOLDER);
    return new Map(names.map((name) => [name, this.#bytes(name) ?? Buffer.alloc(0)]));
  }

  async read(name: string): Promise<Buffer | undefined> {
    await turn();
    return this.#bytes(name);
  }

  async openExisting(name: string): Promise<JournalFile> {
    await turn();
    const inode = this.disk.inode(join(FOLDER, name));
    if (inode === undefined) throw systemError("ENOENT", name);
    return this.#handle(inode);
  }

  async create(name: string): Promise<JournalFile> {
    await turn();
    const inode = this.disk.open(join(FOLDER, name));
    // open(2) with O_TRUNC
    if (inode.view.size > 0) this.disk.change(inode, { kind: "truncate", size: 0 });
    return this.#handle(inode);
  }

  async rename(from: string, to: string): Promise<void> {
    await turn();
    this.#failIfTold("rename");
    this.disk.rename(join(FOLDER, from), join(FOLDER, to));
  }

  async remove(name: string): Promise<void> {
    await turn();
    this.disk.unlink(join(FOLDER, name));
  }

  async syncFolder(): Promise<void> {
    await turn();
    this.#failIfTold("folder");
    const finish = this.disk.beginFolderSync(FOLDER);
    await turn();
    finish();
  }

  #bytes(name: string): Buffer | undefined {
    const inode = this.disk.inode(join(FOLDER, name));
    return inode === undefined ? undefined : Buffer.from(inode.view.bytes);
  }

  #failIfTold(operation: JournalOperation): void {
    if (this.failNext?.operation !== operation) return;
    const { error } = this.failNext;
    this.failNext = undefined;
    throw error;
  }

  #handle(inode: Inode): JournalFile {
    const { disk } = this;
    return {
      write: async (bytes, position) => {
        await turn();
        // A killed writer may have got half of it into the page cache.
        const half = bytes.length >> 1;
        const pieces = [bytes.subarray(0, half), bytes.subarray(half)];
        let at = position;
        for (const piece of pieces) {
          disk.change(inode, { kind: "write", position: at, bytes: Buffer.from(piece) });
          at += piece.length;
          this.#failIfTold("write");
          await turn();
        }
      },
      truncate: async (size) => {
        await turn();
        disk.change(inode, { kind: "truncate", size });
      },
      sync: async () => {
        await turn();
        if (this.failNext?.operation === "sync") disk.loseWrites(inode);
        this.#failIfTold("sync");
        const finish = disk.beginSync(inode);
        await turn();
        finish();
      },
      close: () => Promise.resolve(),
    };
  }
}

async function turn(): Promise<void> {
  await Promise.resolve();
}
