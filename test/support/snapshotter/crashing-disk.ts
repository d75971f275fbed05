/**
 * A folder on a disk that loses power. Every byte written and every other operation costs one
 * unit; when the budget is spent, the operation under way is cut short and all later ones fail.
 * What a crash leaves of unsynced writes and folder changes is chosen by the test.
 */
import type {
  JournalFile,
  JournalFiles,
} from "../../../src/snapshotter/metastore/journal-files.ts";

export class PowerLoss extends Error {}

type Change =
  | { readonly kind: "write"; readonly position: number; readonly bytes: Buffer }
  | { readonly kind: "truncate"; readonly bytes: number };

interface Inode {
  synced: Buffer;
  pending: Change[];
}

type FolderChange =
  | { readonly kind: "link"; readonly name: string; readonly inode: Inode }
  | { readonly kind: "unlink"; readonly name: string };

/** What survives of that which was not synced. */
export interface CrashOutcome {
  /** Of the pending changes of each file: how many are there, of all (0…1). */
  readonly writesKept: number;
  /** The file has its new size, but zeros where the last kept write's data should be. */
  readonly zeroed: boolean;
  /** Of the pending folder changes, in order (0…1). */
  readonly folderKept: number;
}

function applyChange(content: Buffer, change: Change): Buffer {
  if (change.kind === "truncate") {
    const next = Buffer.alloc(change.bytes);
    content.copy(next);
    return next;
  }
  const size = Math.max(content.length, change.position + change.bytes.length);
  const next = Buffer.alloc(size);
  content.copy(next);
  change.bytes.copy(next, change.position);
  return next;
}

function contentOf(inode: Inode): Buffer {
  return inode.pending.reduce(applyChange, inode.synced);
}

function applyFolder(entries: Map<string, Inode>, change: FolderChange): void {
  if (change.kind === "link") entries.set(change.name, change.inode);
  else entries.delete(change.name);
}

export class CrashingDisk implements JournalFiles {
  #synced: Map<string, Inode>;
  #pending: FolderChange[] = [];
  readonly #budget: number;
  spent = 0;
  /** Thrown once by the next operation of this kind: a disk that errs and lives on. */
  failNext:
    { readonly operation: "write" | "sync" | "rename" | "folder"; error: Error } | undefined;

  constructor(budget = Number.POSITIVE_INFINITY, files: ReadonlyMap<string, Buffer> = new Map()) {
    this.#budget = budget;
    this.#synced = new Map(
      [...files].map(([name, content]) => [name, { synced: content, pending: [] }]),
    );
  }

  /** The disk after the power has come back. */
  afterCrash(outcome: CrashOutcome): CrashingDisk {
    const entries = new Map(this.#synced);
    const kept = Math.round(this.#pending.length * outcome.folderKept);
    for (const change of this.#pending.slice(0, kept)) applyFolder(entries, change);
    const files = new Map<string, Buffer>();
    for (const [name, inode] of entries) {
      const changes = inode.pending.slice(0, Math.ceil(inode.pending.length * outcome.writesKept));
      const last = changes.at(-1);
      if (outcome.zeroed && last?.kind === "write") {
        changes[changes.length - 1] = { ...last, bytes: Buffer.alloc(last.bytes.length) };
      } else if (last?.kind === "write") {
        const length = Math.ceil(last.bytes.length * outcome.writesKept);
        changes[changes.length - 1] = { ...last, bytes: last.bytes.subarray(0, length) };
      }
      files.set(name, changes.reduce(applyChange, inode.synced));
    }
    return new CrashingDisk(Number.POSITIVE_INFINITY, files);
  }

  contents(): Map<string, Buffer> {
    return new Map([...this.#entries()].map(([name, inode]) => [name, contentOf(inode)]));
  }

  #entries(): Map<string, Inode> {
    const entries = new Map(this.#synced);
    for (const change of this.#pending) applyFolder(entries, change);
    return entries;
  }

  /** How many of `units` the budget still allows; throws when none of them. */
  #spend(units: number): number {
    const left = this.#budget - this.spent;
    if (left <= 0) throw new PowerLoss("power loss");
    this.spent += Math.min(units, left);
    return Math.min(units, left);
  }

  #failIfTold(operation: "write" | "sync" | "rename" | "folder"): void {
    if (this.failNext?.operation !== operation) return;
    const { error } = this.failNext;
    this.failNext = undefined;
    throw error;
  }

  async read(name: string): Promise<Buffer | undefined> {
    await Promise.resolve();
    this.#spend(1);
    const inode = this.#entries().get(name);
    return inode === undefined ? undefined : Buffer.from(contentOf(inode));
  }

  async openExisting(name: string): Promise<JournalFile> {
    await Promise.resolve();
    this.#spend(1);
    const inode = this.#entries().get(name);
    if (inode === undefined) throw Object.assign(new Error(name), { code: "ENOENT" });
    return this.#handle(inode);
  }

  async create(name: string): Promise<JournalFile> {
    await Promise.resolve();
    this.#spend(1);
    const inode: Inode = { synced: Buffer.alloc(0), pending: [] };
    this.#pending.push({ kind: "link", name, inode });
    return this.#handle(inode);
  }

  async rename(from: string, to: string): Promise<void> {
    await Promise.resolve();
    this.#spend(1);
    this.#failIfTold("rename");
    const inode = this.#entries().get(from);
    if (inode === undefined) throw Object.assign(new Error(from), { code: "ENOENT" });
    // rename(2) is atomic; here the new name may come first, never the loss of both.
    this.#pending.push({ kind: "link", name: to, inode }, { kind: "unlink", name: from });
  }

  async remove(name: string): Promise<void> {
    await Promise.resolve();
    this.#spend(1);
    if (this.#entries().has(name)) this.#pending.push({ kind: "unlink", name });
  }

  async syncFolder(): Promise<void> {
    await Promise.resolve();
    this.#spend(1);
    this.#failIfTold("folder");
    this.#synced = this.#entries();
    this.#pending = [];
  }

  #handle(inode: Inode): JournalFile {
    return {
      write: async (bytes, position) => {
        await Promise.resolve();
        const allowed = this.#spend(bytes.length);
        const written = Buffer.from(bytes.subarray(0, allowed));
        inode.pending.push({ kind: "write", position, bytes: written });
        this.#failIfTold("write");
        if (allowed < bytes.length) throw new PowerLoss("power loss");
      },
      truncate: async (bytes) => {
        await Promise.resolve();
        this.#spend(1);
        inode.pending.push({ kind: "truncate", bytes });
      },
      sync: async () => {
        await Promise.resolve();
        this.#spend(1);
        this.#failIfTold("sync");
        inode.synced = contentOf(inode);
        inode.pending = [];
      },
      close: () => Promise.resolve(),
    };
  }
}
