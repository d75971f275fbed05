/**
 * A disk with a page cache in front of it that can lose power at any moment. It records what was
 * written, cut, punched, linked, renamed, removed and synced, and gives any state that a file
 * system may leave. What may happen is what file systems were seen to do:
 *
 * - Pillai et al., "All File Systems Are Not Created Equal" (ALICE, OSDI'14): an append may grow
 *   the file before its data is there (zeros or garbage); writes reach the disk in any order,
 *   sector by sector; directory operations may be reordered against data and against each other;
 *   rename is atomic; fsync of a file does not make its name durable, fsync of the folder does.
 * - ext4(5): `data=ordered` has data on the disk before the size that covers it, `data=writeback`
 *   may show old contents; xfs and ext4 (unwritten extents) show zeros.
 * - fsync(2): fdatasync also writes the size that is needed to read the data back.
 *
 * Sectors are atomic. Of one sector a crash leaves the version after any of the writes to it,
 * because the page cache writes the whole sector as it is at that time.
 */
import { dirname } from "node:path";
import type { Prng } from "../../fuzz/prng.ts";
import { changed, Content } from "./content.ts";
import type { Change } from "./content.ts";

interface Pending {
  readonly sequence: number;
  readonly change: Change;
}

export interface Inode {
  readonly id: number;
  readonly isFolder: boolean;
  /** What readers see. */
  view: Content;
  /** What is on the disk for sure. Never changed in place: snapshots share it. */
  durable: Content;
  pending: Pending[];
  modifiedMs: number;
}

/** One step of the name space: what it unlinks and what it links, both or neither. */
interface NameChange {
  readonly sequence: number;
  readonly unlink: string | undefined;
  readonly link: string | undefined;
  readonly inode: Inode;
}

/** All that decides what a crash may leave; cheap to take, never changes. */
export interface DiskSnapshot {
  readonly names: ReadonlyMap<string, Inode>;
  readonly durableNames: ReadonlyMap<string, Inode>;
  readonly nameChanges: readonly NameChange[];
  readonly files: ReadonlyMap<
    Inode,
    { readonly durable: Content; readonly pending: readonly Pending[]; readonly modifiedMs: number }
  >;
  readonly nextSequence: number;
}

export class SimDisk {
  names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #nameChanges: NameChange[] = [];
  #sequence = 0;
  #nextId = 1;
  /** Called after every change, also of what is durable: a crash may come here. */
  onChange: () => void = () => undefined;
  /** Called after the view of a file changed in the range. */
  onData: (inode: Inode, start: number, end: number) => void = () => undefined;

  inode(path: string): Inode | undefined {
    return this.names.get(path);
  }

  /** Names in the folder. */
  list(folder: string): string[] {
    return [...this.names.keys()]
      .filter((path) => dirname(path) === folder)
      .map((path) => path.slice(folder.length + 1));
  }

  makeFolder(path: string): void {
    if (this.names.has(path) || path === "/" || path === ".") return;
    this.makeFolder(dirname(path));
    this.#create(path, true);
  }

  open(path: string): Inode {
    return this.names.get(path) ?? this.#create(path, false);
  }

  change(inode: Inode, change: Change): void {
    this.#sequence += 1;
    inode.pending.push({ sequence: this.#sequence, change });
    const before = inode.view.size;
    inode.view.apply(change);
    const { start, end } = changed(change, before);
    this.onData(inode, start, end);
    this.onChange();
  }

  rename(from: string, to: string): void {
    const inode = this.names.get(from);
    if (inode === undefined) throw systemError("ENOENT", from);
    this.names.delete(from);
    this.names.set(to, inode);
    this.#noteName({ unlink: from, link: to, inode });
  }

  unlink(path: string): boolean {
    const inode = this.names.get(path);
    if (inode === undefined) return false;
    this.names.delete(path);
    this.#noteName({ unlink: path, link: undefined, inode });
    return true;
  }

  /** Starts an fdatasync; what is written between this and the second call is not covered. */
  beginSync(inode: Inode): () => void {
    const until = this.#sequence;
    this.onChange();
    return () => {
      const isCovered = (one: Pending): boolean => one.sequence <= until;
      const covered = inode.pending.filter(isCovered);
      if (covered.length === 0) return;
      const durable = inode.durable.copy();
      for (const { change } of covered) durable.apply(change);
      inode.durable = durable;
      inode.pending = inode.pending.filter((one) => !isCovered(one));
      this.onChange();
    };
  }

  /** The same for the names of a folder. A rename is durable with either of its folders. */
  beginFolderSync(folder: string): () => void {
    const until = this.#sequence;
    this.onChange();
    return () => {
      const isInside = (path: string | undefined): boolean =>
        path !== undefined && dirname(path) === folder;
      const rest: NameChange[] = [];
      for (const change of this.#nameChanges) {
        const isCovered = isInside(change.link) || isInside(change.unlink);
        if (isCovered && change.sequence <= until) applyName(this.#durableNames, change);
        else rest.push(change);
      }
      this.#nameChanges = rest;
      this.onChange();
    };
  }

  /** Everything is durable. */
  syncAll(): void {
    for (const inode of new Set(this.names.values())) this.beginSync(inode)();
    this.#durableNames = new Map(this.names);
    this.#nameChanges = [];
  }

  /** A failed fdatasync: what it was to write is clean in the page cache, and not on the disk. */
  loseWrites(inode: Inode): void {
    inode.pending = inode.pending.filter(({ change }) => change.kind !== "write");
  }

  get allocatedBytes(): number {
    let total = 0;
    for (const inode of new Set(this.names.values())) total += inode.view.allocatedBytes;
    return total;
  }

  snapshot(): DiskSnapshot {
    const files = new Map<Inode, { durable: Content; pending: Pending[]; modifiedMs: number }>();
    const note = (inode: Inode): void => {
      const { durable, modifiedMs } = inode;
      files.set(inode, { durable, pending: [...inode.pending], modifiedMs });
    };
    for (const inode of this.names.values()) note(inode);
    for (const inode of this.#durableNames.values()) note(inode);
    for (const { inode } of this.#nameChanges) note(inode);
    return {
      names: new Map(this.names),
      durableNames: new Map(this.#durableNames),
      nameChanges: [...this.#nameChanges],
      files,
      nextSequence: this.#sequence,
    };
  }

  /** After a kill: nothing is lost, and what was not synced may still be lost later. */
  static afterKill(snapshot: DiskSnapshot): SimDisk {
    const disk = new SimDisk();
    const copies = new Map<Inode, Inode>();
    for (const [inode, { durable, pending, modifiedMs }] of snapshot.files) {
      const view = durable.copy();
      for (const { change } of pending) view.apply(change);
      copies.set(inode, disk.#copy(inode, { durable, view, pending: [...pending], modifiedMs }));
    }
    const copyOf = (inode: Inode): Inode => copies.get(inode) ?? inode;
    for (const [path, inode] of snapshot.names) disk.names.set(path, copyOf(inode));
    for (const [path, inode] of snapshot.durableNames) disk.#durableNames.set(path, copyOf(inode));
    disk.#nameChanges = snapshot.nameChanges.map((one) => ({ ...one, inode: copyOf(one.inode) }));
    disk.#sequence = snapshot.nextSequence;
    return disk;
  }

  /** After a power cut: one of the states that the file system may have left. */
  static afterPowerCut(snapshot: DiskSnapshot, random: Prng): SimDisk {
    const names = new Map(snapshot.durableNames);
    for (const change of survivors(snapshot.nameChanges, random)) applyName(names, change);
    return SimDisk.#from(snapshot, names, (durable, pending) =>
      crashedContent(durable, pending, random),
    );
  }

  /** After a power cut that took everything it could. */
  static withoutUnsynced(snapshot: DiskSnapshot): SimDisk {
    return SimDisk.#from(snapshot, snapshot.durableNames, (durable) => durable.copy());
  }

  static #from(
    snapshot: DiskSnapshot,
    names: ReadonlyMap<string, Inode>,
    crashed: (durable: Content, pending: readonly Pending[]) => Content,
  ): SimDisk {
    const disk = new SimDisk();
    const copies = new Map<Inode, Inode>();
    for (const [path, inode] of names) {
      if (!hasFolders(names, path)) continue;
      const known = snapshot.files.get(inode);
      if (known === undefined) throw new Error(`no contents of ${path}`);
      let copy = copies.get(inode);
      if (copy === undefined) {
        const durable = crashed(known.durable, known.pending);
        const { modifiedMs } = known;
        copy = disk.#copy(inode, { durable, view: durable.copy(), pending: [], modifiedMs });
        copies.set(inode, copy);
      }
      disk.names.set(path, copy);
      disk.#durableNames.set(path, copy);
    }
    return disk;
  }

  #copy(inode: Inode, parts: Omit<Inode, "id" | "isFolder">): Inode {
    this.#nextId = Math.max(this.#nextId, inode.id + 1);
    return { id: inode.id, isFolder: inode.isFolder, ...parts };
  }

  #create(path: string, isFolder: boolean): Inode {
    const empty = { durable: new Content(), view: new Content(), pending: [], modifiedMs: 0 };
    const inode = { id: this.#nextId, isFolder, ...empty };
    this.#nextId += 1;
    this.names.set(path, inode);
    this.#noteName({ unlink: undefined, link: path, inode });
    return inode;
  }

  #noteName(change: Omit<NameChange, "sequence">): void {
    this.#sequence += 1;
    this.#nameChanges.push({ ...change, sequence: this.#sequence });
    this.onChange();
  }
}

/** Whether a power cut could leave more than one state. */
export function isSettled(snapshot: DiskSnapshot): boolean {
  if (snapshot.nameChanges.length > 0) return false;
  return [...snapshot.files.values()].every(({ pending }) => pending.length === 0);
}

export function systemError(code: string, text: string): Error {
  return Object.assign(new Error(`${code}: ${text}`), { code });
}

function applyName(names: Map<string, Inode>, change: NameChange): void {
  if (change.unlink !== undefined && names.get(change.unlink) === change.inode) {
    names.delete(change.unlink);
  }
  if (change.link !== undefined) names.set(change.link, change.inode);
}

function hasFolders(names: ReadonlyMap<string, Inode>, path: string): boolean {
  for (let folder = dirname(path); folder !== "/"; folder = dirname(folder)) {
    if (names.get(folder)?.isFolder !== true) return false;
  }
  return true;
}

/** Journalling file systems keep the first so many; the weakest keep any. */
function survivors(changes: readonly NameChange[], random: Prng): readonly NameChange[] {
  switch (random.below(5)) {
    case 0:
      return [];
    case 1:
      return changes;
    case 2:
      return changes.filter(() => random.oneIn(2));
    default:
      return changes.slice(0, random.below(changes.length + 1));
  }
}

/**
 * Sizes, cuts and holes are metadata: the first so many of a file's survive. Of the data each
 * sector has the version after some write of it, or what was there before.
 */
function crashedContent(durable: Content, pending: readonly Pending[], random: Prng): Content {
  const content = durable.copy();
  if (pending.length === 0) return content;
  const count = pending.length;
  const cut = (): number => [0, count, random.below(count + 1)][random.below(3)] ?? 0;
  const metadata = cut();
  // Data of all sectors alike, or each by itself.
  const common = random.oneIn(2) ? cut() : undefined;
  const sectorBytes = random.oneIn(2) ? 512 : 4096;
  const fill = random.oneIn(4) ? 0xa5 : 0;
  const cuts = new Map<number, number>();
  const cutOf = (sector: number): number => {
    const known = cuts.get(sector) ?? common ?? cut();
    cuts.set(sector, known);
    return known;
  };
  pending.forEach(({ change }, index) => {
    content.applyPart(change, {
      isMetadata: index < metadata,
      sectorBytes,
      isWritten: (sector) => index < cutOf(sector),
      fill,
    });
  });
  return content;
}
